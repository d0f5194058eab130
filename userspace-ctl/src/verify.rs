// SPDX-License-Identifier: GPL-2.0-only
//! `debug verify`: checks that the store's lists and counts match its memory.

use anyhow::{Context, Result};
use nix::errno::Errno;
use serde_json::{json, Map, Value};

use crate::answer::Answer;
use crate::device::Device;
use crate::exit::{end, Status};

/// Has a module for the debug kernel compare them; no other module can.
pub(crate) fn verify(device: &Device) -> Result<Answer> {
    let text = device.verify();
    if let Err(error) = &text {
        if error.downcast_ref::<Errno>() == Some(&Errno::ENOTTY) {
            end!(
                Refused,
                "only a module for the debug kernel can do that (cargo xtask kmod --debug-kernel)"
            );
        }
    }
    answer(&text?)
}

fn answer(text: &str) -> Result<Answer> {
    if let Some(violation) = text.strip_prefix("violation ") {
        let violation = violation.trim_end();
        return Ok(Answer::new(
            format!("violation: {violation}\n"),
            json!({"violation": violation}),
        )
        .ending(Status::Found));
    }
    let slots = text
        .lines()
        .map(|line| {
            let (kind, number) = line.split_once(' ')?;
            Some((kind.to_owned(), Value::from(number.parse::<u64>().ok()?)))
        })
        .collect::<Option<Map<_, _>>>()
        .with_context(|| format!("the module says {text:?}"))?;
    Ok(Answer::new(
        format!("no violation; slots by what they are used for:\n{text}"),
        json!({"violation": null, "slots": slots}),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn census_is_given_with_its_numbers() {
        let answer = answer("carved 10\nfree 4\nlive 6\n").unwrap();
        assert_eq!(answer.status, Status::Done);
        assert!(answer.text.ends_with("\ncarved 10\nfree 4\nlive 6\n"));
        assert_eq!(answer.json["slots"]["live"], 6);
        assert!(answer.json["violation"].is_null());
    }

    #[test]
    fn violation_ends_with_a_status_of_its_own() {
        let text = "violation FreeCount class 3 expected 4 found 5\n";
        let answer = answer(text).unwrap();
        assert_eq!(answer.status, Status::Found);
        assert_eq!(
            answer.text,
            "violation: FreeCount class 3 expected 4 found 5\n"
        );
    }

    #[test]
    fn text_that_is_no_census_is_an_error() {
        assert!(answer("carved many\n").is_err());
    }
}
