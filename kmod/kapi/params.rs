// SPDX-License-Identifier: GPL-2.0-only
//! The module's parameters (`linux/moduleparam.h`), made from the table in `hippos_abi`: the
//! kernel's entry for each, which insmod writes and sysfs shows, and the text of `modinfo`. The
//! `module!` macro's own parameters are integers alone, and not in sysfs.

use core::cell::UnsafeCell;
use core::fmt;

use hippos_abi::parameters::{each, ParameterError, SettingsRow};
use kernel::bindings;
use kernel::ffi::c_char;
use kernel::str::{CStr, CStrExt as _};

/// Where insmod puts a parameter.
#[repr(transparent)]
struct ParameterCell<T>(UnsafeCell<T>);

// SAFETY: written before the module's init runs, and shown read-only in sysfs.
unsafe impl<T> Sync for ParameterCell<T> {}

impl<T: Copy> ParameterCell<T> {
    fn get(&self) -> T {
        // SAFETY: there are no more writes, as said above.
        unsafe { *self.0.get() }
    }
}

/// The kernel's entry for a parameter.
#[repr(transparent)]
struct ParameterEntry(#[allow(dead_code)] bindings::kernel_param);

// SAFETY: the kernel alone reads it.
unsafe impl Sync for ParameterEntry {}

/// A string of the module's own, as a default or as insmod gave it.
fn string(raw: *const c_char) -> &'static CStr {
    if raw.is_null() {
        return c"";
    }
    // SAFETY: such a string lives as long as the module.
    unsafe { CStr::from_char_ptr(raw) }
}

/// One module for each kind of parameter: the kernel's variable, made from a default that ends
/// with a zero; the kernel's functions for it, and its type in `modinfo`; the checked value; and
/// the value as `stats settings` shows it.
mod number {
    use super::*;

    pub(super) type Raw = u32;
    pub(super) type Value = u32;
    pub(super) const TYPE: &str = "uint";
    pub(super) const OPS: *const bindings::kernel_param_ops = &raw const bindings::param_ops_uint;

    pub(super) const fn raw(default: &'static str) -> Raw {
        let (digits, mut number, mut at) = (default.as_bytes(), 0, 0);
        while digits[at] != 0 {
            number = number * 10 + (digits[at] - b'0') as u32;
            at += 1;
        }
        number
    }

    pub(super) fn check(
        parameter: &'static hippos_abi::parameters::Parameter,
        raw: Raw,
    ) -> Result<Value, ParameterError<'static>> {
        parameter.number(raw)
    }

    pub(super) fn shown(raw: Raw) -> impl fmt::Display {
        raw
    }

    pub(super) fn is(now: Raw, default: &'static str) -> bool {
        now == raw(default)
    }
}

mod switch {
    use super::*;

    pub(super) type Raw = bool;
    pub(super) type Value = bool;
    pub(super) const TYPE: &str = "bool";
    pub(super) const OPS: *const bindings::kernel_param_ops = &raw const bindings::param_ops_bool;

    pub(super) const fn raw(default: &'static str) -> Raw {
        default.as_bytes()[0] == b'1'
    }

    pub(super) fn check(
        _: &'static hippos_abi::parameters::Parameter,
        raw: Raw,
    ) -> Result<Value, ParameterError<'static>> {
        Ok(raw)
    }

    pub(super) fn shown(raw: Raw) -> impl fmt::Display {
        if raw {
            "yes"
        } else {
            "no"
        }
    }

    pub(super) fn is(now: Raw, default: &'static str) -> bool {
        now == raw(default)
    }
}

mod text {
    use super::*;

    pub(super) type Raw = *const c_char;
    pub(super) type Value = &'static CStr;
    pub(super) const TYPE: &str = "charp";
    pub(super) const OPS: *const bindings::kernel_param_ops = &raw const bindings::param_ops_charp;

    pub(super) const fn raw(default: &'static str) -> Raw {
        default.as_ptr().cast()
    }

    pub(super) fn check(
        _: &'static hippos_abi::parameters::Parameter,
        raw: Raw,
    ) -> Result<Value, ParameterError<'static>> {
        Ok(string(raw))
    }

    pub(super) fn shown(raw: Raw) -> impl fmt::Display {
        core::str::from_utf8(string(raw).to_bytes()).unwrap_or("?")
    }

    pub(super) fn is(now: Raw, default: &'static str) -> bool {
        string(now).to_bytes_with_nul() == default.as_bytes()
    }
}

mod size {
    use super::*;

    pub(super) type Value = usize;
    pub(super) use super::text::{is, raw, shown, Raw, OPS, TYPE};

    pub(super) fn check(
        parameter: &'static hippos_abi::parameters::Parameter,
        raw: Raw,
    ) -> Result<Value, ParameterError<'static>> {
        parameter.size(string(raw).to_bytes())
    }
}

mod choice {
    use super::*;

    pub(super) type Value = &'static str;
    pub(super) use super::text::{is, raw, shown, Raw, OPS, TYPE};

    pub(super) fn check(
        parameter: &'static hippos_abi::parameters::Parameter,
        raw: Raw,
    ) -> Result<Value, ParameterError<'static>> {
        parameter.choice(string(raw).to_bytes())
    }
}

/// The length of a text in parts.
const fn len(parts: &[&str]) -> usize {
    let (mut len, mut at) = (0, 0);
    while at < parts.len() {
        len += parts[at].len();
        at += 1;
    }
    len
}

/// A text in parts, `N` bytes in all, as one.
const fn join<const N: usize>(parts: &[&str]) -> [u8; N] {
    let (mut all, mut to, mut at) = ([0; N], 0, 0);
    while at < parts.len() {
        let (part, mut from) = (parts[at].as_bytes(), 0);
        while from < part.len() {
            all[to] = part[from];
            to += 1;
            from += 1;
        }
        at += 1;
    }
    all
}

/// Puts a text in parts where `modinfo` reads it.
macro_rules! modinfo {
    ($($part:expr),*) => {
        const _: () = {
            const PARTS: &[&str] = &[$($part,)* "\0"];
            #[used]
            #[link_section = ".modinfo"]
            static INFO: [u8; len(PARTS)] = join(PARTS);
        };
    };
}

macro_rules! kernel_parameters {
    ($($name:ident: $kind:ident($($range:literal),*) = $default:literal,
       $shown:ident $row:literal, $text:literal;)+) => {
        /// All parameters, each in its range.
        #[derive(Clone, Copy)]
        pub struct Params {
            $(#[doc = $text] pub $name: $kind::Value,)+
        }

        #[allow(non_upper_case_globals)]
        mod cell {
            use super::*;
            $(pub(super) static $name: ParameterCell<$kind::Raw> =
                ParameterCell(UnsafeCell::new($kind::raw(concat!($default, "\0"))));)+
        }

        $(
            modinfo!("parmtype=", stringify!($name), ":", $kind::TYPE);
            modinfo!("parm=", stringify!($name), ":", each::$name.modinfo);
            const _: () = {
                #[used]
                #[link_section = "__param"]
                static ENTRY: ParameterEntry = ParameterEntry(bindings::kernel_param {
                    name: concat!(stringify!($name), "\0").as_ptr().cast(),
                    mod_: (&raw const bindings::__this_module).cast_mut(),
                    ops: $kind::OPS,
                    perm: 0o444,
                    level: -1,
                    flags: 0,
                    __bindgen_anon_1: bindings::kernel_param__bindgen_ty_1 {
                        arg: cell::$name.0.get().cast(),
                    },
                });
            };
        )+

        impl Params {
            /// The values that insmod has set, or the first parameter that is out of its range.
            pub fn get() -> Result<Self, ParameterError<'static>> {
                Ok(Self {
                    $($name: $kind::check(&each::$name, cell::$name.get())?,)+
                })
            }

            /// Passes on the parameters that `stats settings` shows as they were loaded, each by its row.
            pub fn tell(tell: &mut dyn FnMut(&'static str, fmt::Arguments<'_>)) {
                $(
                    if let SettingsRow::Loaded(row) = each::$name.row {
                        tell(row, format_args!("{}", $kind::shown(cell::$name.get())));
                    }
                )+
            }
        }

        impl fmt::Display for NotDefault {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut is_any = false;
                $(
                    let raw = cell::$name.get();
                    if !$kind::is(raw, concat!($default, "\0")) {
                        write!(f, concat!(" ", stringify!($name), "={}"), $kind::shown(raw))?;
                        is_any = true;
                    }
                )+
                if !is_any {
                    f.write_str(" none")?;
                }
                Ok(())
            }
        }
    };
}

/// The parameters that insmod set to something else than their defaults, or `none`; each with a space before it.
pub struct NotDefault;

hippos_abi::parameters!(kernel_parameters);
