// SPDX-License-Identifier: GPL-2.0-only
//! `stats detail`: lines like `PREFIX user get 1 hit 1 set 0 del 0`.

use serde_json::{Map, Value};

use crate::answer::Answer;
use crate::terminal_text;

/// One line for each prefix, and a JSON object of objects.
pub(crate) fn detail(text: &str) -> Answer {
    let mut json = Map::new();
    let mut shown = String::new();
    for line in text.lines().filter(|line| line.starts_with("PREFIX ")) {
        let words: Vec<_> = line.split(' ').skip(1).collect();
        // The prefix itself may have blanks: the counts are the last eight words.
        let at = words.len().saturating_sub(8);
        let (prefix, counts) = (
            terminal_text::shown(words[..at].join(" ").as_bytes()),
            &words[at..],
        );
        let number = |text: &str| Value::from(text.parse::<u64>().unwrap_or(0));
        let counts: Map<_, _> = counts
            .chunks_exact(2)
            .map(|pair| (pair[0].to_owned(), number(pair[1])))
            .collect();
        shown.push_str(&prefix);
        for (name, count) in &counts {
            shown.push_str(&format!("  {name} {count}"));
        }
        shown.push('\n');
        json.insert(prefix, Value::Object(counts));
    }
    Answer::new(shown, Value::Object(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prefix_has_its_counts() {
        let answer =
            detail("PREFIX user get 3 hit 2 set 1 del 0\r\nPREFIX a get 0 hit 0 set 5 del 0\r\n");
        assert_eq!(answer.json["user"]["get"], 3);
        assert_eq!(answer.json["a"]["set"], 5);
        assert_eq!(answer.text.lines().count(), 2);
        assert!(answer.text.contains("user  "), "{}", answer.text);
        assert_eq!(detail("").text, "");
        let answer = detail("PREFIX \x1b[2J get 3 hit 2 set 1 del 0\r\n");
        assert!(answer.text.starts_with("\\u{1b}[2J  "), "{}", answer.text);
    }
}
