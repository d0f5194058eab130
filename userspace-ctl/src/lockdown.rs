// SPDX-License-Identifier: GPL-2.0-only
//! Whether the kernel takes signed modules only, as under Secure Boot.

use nix::errno::Errno;

use crate::system::System;

/// The modes of lockdown; the one in force is in brackets.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// `Y` if signatures are demanded without lockdown.
const ENFORCED: &str = "/sys/module/module/parameters/sig_enforce";
/// The kernel's errors for a module that is not signed, or not by a trusted key. modprobe prints their texts.
const REFUSALS: [Errno; 3] = [Errno::EKEYREJECTED, Errno::ENOKEY, Errno::EPERM];

/// Why the kernel may have refused the module with this error, and the remedy, if it takes signed modules only.
pub(crate) fn reason(system: &System, error: &str) -> Option<String> {
    if !REFUSALS.iter().any(|errno| error.contains(errno.desc())) {
        return None;
    }
    let modes = system.read(LOCKDOWN).unwrap_or_default();
    let mode = modes
        .split(['[', ']'])
        .nth(1)
        .filter(|mode| *mode != "none");
    let state = match mode {
        Some(mode) => format!("is locked down ({mode}, as under Secure Boot)"),
        None if system.read(ENFORCED).as_deref() == Some("Y") => {
            "enforces signatures (module.sig_enforce)".to_owned()
        }
        None => return None,
    };
    Some(format!(
        "the kernel {state} and takes only modules signed with a key that it trusts: enroll DKMS's key (mokutil --import \
         /var/lib/dkms/mok.pub, then reboot) or sign hippos.ko (install.md, Secure Boot)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::Folder;

    const REJECTED: &str =
        "modprobe: ERROR: could not insert 'hippos': Key was rejected by service";
    const NOT_PERMITTED: &str =
        "modprobe: ERROR: could not insert 'hippos': Operation not permitted";

    #[test]
    fn refusal_of_an_unsigned_module_is_explained_by_lockdown() {
        let locked = Folder::new(
            "locked",
            &[(LOCKDOWN, "none [integrity] confidentiality\n")],
        );
        for error in [REJECTED, NOT_PERMITTED] {
            let reason = reason(&locked.system(), error).unwrap();
            assert!(reason.contains("locked down (integrity"), "{reason}");
        }
        let other = "modprobe: ERROR: could not insert 'hippos': Address already in use";
        assert_eq!(reason(&locked.system(), other), None);
        let enforced = Folder::new("enforced", &[(ENFORCED, "Y\n")]);
        let reason = reason(&enforced.system(), REJECTED).unwrap();
        assert!(reason.contains("sig_enforce"), "{reason}");
    }

    #[test]
    fn refusal_by_a_kernel_that_is_not_locked_is_left_alone() {
        let files = [
            (LOCKDOWN, "[none] integrity confidentiality\n"),
            (ENFORCED, "N\n"),
        ];
        let open = Folder::new("open", &files);
        assert_eq!(reason(&open.system(), NOT_PERMITTED), None);
    }
}
