// SPDX-License-Identifier: GPL-2.0-only
//! Rust's declarations of C's functions and structures: `kmod/kapi/ffi.rs` against the headers of `kmod/c`.
//!
//! Functions are compared with their types, structures field by field. Both compilers check the same size and the same
//! offset of the last field: by a row of `layout!` in Rust, and in C by
//! `static_assert(sizeof(struct hippos_waker) == 16 && offsetof(struct hippos_waker, pending) == 8);`. A structure whose
//! fields Rust does not use is an array of words there (`[*mut c_void; 8]`); C checks the same number:
//! `static_assert(sizeof(struct hippos_poll) == 8 * sizeof(long));`. Constants named `HIPPOS_…` have the value of the
//! enumerator or macro of that name.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{read, tracked, Finding};

const RUST: &str = "kmod/kapi/ffi.rs";

/// A function's or a structure's types, in C's order: `u32*`, `const sk_buff*`, `u8[16]`.
type Types = Vec<String>;

/// The declarations of one side.
#[derive(Debug, Default)]
struct Declared {
    /// The return type, then those of the arguments.
    functions: BTreeMap<String, Types>,
    /// `name: type` of each field.
    structs: BTreeMap<String, Types>,
    /// Types of functions, by their names.
    aliases: BTreeMap<String, String>,
    /// Sizes in words.
    words: BTreeMap<String, usize>,
    /// Sizes in bytes, and the last field with its offset, as they are asserted: `128, sent, 120`.
    layouts: BTreeMap<String, String>,
    /// Constants, and those of enumerations.
    values: BTreeMap<String, u64>,
}

pub(super) fn check() -> Result<Vec<Finding>> {
    let mut c = String::new();
    for file in tracked()? {
        if file.starts_with("kmod/c/") && (file.ends_with(".h") || file.ends_with(".c")) {
            c.push_str(&read(&file)?);
        }
    }
    Ok(compare(&of_c(&c), &of_rust(&read(RUST)?)))
}

fn compare(c: &Declared, rust: &Declared) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |what: String| findings.push(Finding::new(RUST, 0, what));
    let resolved = |types: &Types, aliases: &BTreeMap<String, String>| -> Types {
        let resolve = |kind: &String| {
            let (name, kind) = match kind.split_once(": ") {
                Some((name, kind)) => (format!("{name}: "), kind),
                None => (String::new(), kind.as_str()),
            };
            // C has pointers to functions, Rust functions that are pointers.
            let alias = aliases.get(kind.trim_end_matches('*'));
            format!("{name}{}", alias.map_or(kind, String::as_str))
        };
        types.iter().map(resolve).collect()
    };
    let mut agree = |what: String, ours: &Types, theirs: Option<&Types>| {
        let Some(theirs) = theirs else {
            find(format!("{what} is declared in no file of kmod/c"));
            return;
        };
        let (ours, theirs) = (resolved(ours, &rust.aliases), resolved(theirs, &c.aliases));
        if ours != theirs {
            let (ours, theirs) = (ours.join(", "), theirs.join(", "));
            find(format!("{what} is {ours} here, {theirs} in C"));
        }
    };
    for (name, types) in &rust.functions {
        agree(format!("{name}()"), types, c.functions.get(name));
    }
    for (name, fields) in &rust.structs {
        if !rust.words.contains_key(name) {
            agree(format!("struct {name}"), fields, c.structs.get(name));
        }
    }
    for (name, fields) in &rust.structs {
        if rust.words.contains_key(name) {
            continue;
        }
        let asserted = |layouts: &BTreeMap<String, String>| match layouts.get(name) {
            Some(layout) => layout.clone(),
            None => "nothing".to_owned(),
        };
        let (ours, theirs) = (asserted(&rust.layouts), asserted(&c.layouts));
        let last = last_field(fields);
        if ours != theirs || !ours.contains(&format!(" {last},")) {
            find(format!(
                "the layout of {name} is asserted as {ours} here, as {theirs} in C; its last field is {last}"
            ));
        }
    }
    for (name, words) in &rust.words {
        if c.words.get(name) != Some(words) {
            find(format!(
                "{name} has {words} words here; C has no static_assert that it has"
            ));
        }
    }
    for (name, value) in &rust.values {
        let theirs = c.values.get(name);
        if theirs != Some(value) {
            find(format!("{name} is {value} here, {theirs:?} in C"));
        }
    }
    findings
}

/// The name of a structure's last field.
fn last_field(fields: &Types) -> &str {
    let last = fields.last().and_then(|field| field.split_once(": "));
    last.map_or("", |(name, _)| name)
}

// C.

fn of_c(text: &str) -> Declared {
    let mut declared = Declared::default();
    declared.values.extend(text.lines().filter_map(c_macro));
    for declaration in declarations(&without_c_comments(text)) {
        let declaration = declaration.as_str();
        if let Some(asserted) = declaration.strip_prefix("static_assert(sizeof(struct ") {
            let parts = asserted.split_once(") == ");
            let count = parts.and_then(|(name, rest)| {
                let words = rest.strip_suffix(" * sizeof(long))")?;
                Some((name.to_owned(), words.parse().ok()?))
            });
            declared.words.extend(count);
            declared.layouts.extend(c_layout(asserted));
        } else if let Some((_, body)) = declaration
            .strip_prefix("enum ")
            .and_then(|declaration| declaration.split_once('{'))
        {
            declared.values.extend(c_enumerators(body));
        } else if let Some((head, rest)) = declaration.split_once('{') {
            let Some(name) = head.trim().strip_prefix("struct ") else {
                continue;
            };
            let Some((body, _)) = rest.rsplit_once('}') else {
                continue;
            };
            let fields = body.split(';').map(str::trim).filter(|f| !f.is_empty());
            let fields = fields.map(|field| match c_type(field) {
                (kind, Some(name)) => format!("{name}: {kind}"),
                (kind, None) => kind,
            });
            declared.structs.insert(name.to_owned(), fields.collect());
        } else if let Some((head, arguments)) = declaration.split_once('(') {
            let is_alias = head.starts_with("typedef ");
            let head = head.trim_start_matches("typedef ");
            let (returned, Some(name)) = c_type(head) else {
                continue;
            };
            let Some((arguments, _)) = arguments.rsplit_once(')') else {
                continue;
            };
            let mut types = vec![returned];
            types.extend(c_arguments(arguments));
            if is_alias {
                declared.aliases.insert(name, function(&types));
            } else {
                declared.functions.insert(name, types);
            }
        }
    }
    declared
}

/// The name and the number of `#define HIPPOS_REPLY 0x10000`.
fn c_macro(line: &str) -> Option<(String, u64)> {
    let mut words = line.strip_prefix("#define ")?.split_whitespace();
    let name = words.next().filter(|name| name.starts_with("HIPPOS_"))?;
    Some((name.to_owned(), number(words.next()?)?))
}

/// The enumerators in a body, as far as they are listed one by one.
fn c_enumerators(body: &str) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    let mut next = 0;
    for one in body.trim_end_matches('}').split(',').map(str::trim) {
        let (name, value) = match one.split_once(" = ") {
            Some((name, value)) => (name, number(value)),
            None => (one, Some(next)),
        };
        let is_name = name.starts_with("HIPPOS_") && !name.contains(['(', ' ']);
        let Some(value) = value.filter(|_| is_name) else {
            break;
        };
        values.insert(name.to_owned(), value);
        next = value + 1;
    }
    values
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The layout that `hippos_waker) == 16 && offsetof(struct hippos_waker, pending) == 8)` asserts.
fn c_layout(asserted: &str) -> Option<(String, String)> {
    let (name, rest) = asserted.split_once(") == ")?;
    let (size, rest) = rest.split_once(" && offsetof(struct ")?;
    let (last, at) = rest
        .strip_prefix(name)?
        .strip_prefix(", ")?
        .split_once(") == ")?;
    let at = at.strip_suffix(')')?;
    Some((name.to_owned(), format!("{size}, {last}, {at}")))
}

/// A type of a function, as both sides write it here.
fn function(types: &[String]) -> String {
    format!("fn({})", types.join(", "))
}

fn c_arguments(list: &str) -> Types {
    if list.trim() == "void" {
        return Vec::new();
    }
    split(list).iter().map(|one| c_type(one).0).collect()
}

/// The type and the name of `const struct sk_buff *skb`, `u8 ipv6[16]` or `int (*run)(void *data)`.
fn c_type(declaration: &str) -> (String, Option<String>) {
    if let Some((returned, rest)) = declaration.split_once("(*") {
        let (name, arguments) = rest.split_once(")(").unwrap_or((rest, ""));
        let arguments = arguments.trim_end_matches(')');
        let mut types = vec![c_type(&format!("{} _", returned.trim())).0];
        types.extend(c_arguments(arguments));
        return (function(&types), Some(name.to_owned()));
    }
    let (declaration, array) = match declaration.find('[') {
        Some(at) => declaration.split_at(at),
        None => (declaration, ""),
    };
    let spaced = declaration.replace('*', " * ");
    let mut words: Vec<&str> = spaced.split_whitespace().collect();
    let name = words.pop().map(str::to_owned);
    let stars = "*".repeat(words.iter().filter(|word| **word == "*").count());
    let constant = if words.contains(&"const") {
        "const "
    } else {
        ""
    };
    let is_enum = words.contains(&"enum");
    let left_out = |word: &str| {
        // Attributes begin with two underscores.
        matches!(word, "*" | "const" | "struct" | "enum" | "extern") || word.starts_with("__")
    };
    words.retain(|word| !left_out(word));
    let base = match words.join(" ").as_str() {
        _ if is_enum => "c_uint".to_owned(),
        "int" => "c_int".to_owned(),
        "long" => "c_long".to_owned(),
        "unsigned int" => "c_uint".to_owned(),
        "unsigned long" => "c_ulong".to_owned(),
        "size_t" => "usize".to_owned(),
        "s64" => "i64".to_owned(),
        "char" => "c_char".to_owned(),
        "void" if !stars.is_empty() => "c_void".to_owned(),
        "in6_addr" => "u8[16]".to_owned(),
        other => other.to_owned(),
    };
    (format!("{constant}{base}{stars}{array}"), name)
}

fn without_c_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("/*") {
        out.push_str(before);
        rest = behind.split_once("*/").map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    let lines = out.lines().filter(|line| !line.starts_with('#'));
    lines.collect::<Vec<_>>().join(" ")
}

/// The declarations outside of braces, without their semicolons, with single blanks. The body of a function ends one,
/// too.
fn declarations(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut depth, mut one) = (0_u32, String::new());
    for letter in text.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_body = letter == '}' && depth == 0 && one.contains(") {");
        if (letter == ';' && depth == 0) || is_body {
            all.push(one.split_whitespace().collect::<Vec<_>>().join(" "));
            one.clear();
        } else {
            one.push(letter);
        }
    }
    // A body is no declaration.
    all.retain(|one| !one.contains(") {"));
    all
}

// Rust.

fn of_rust(text: &str) -> Declared {
    let mut declared = Declared::default();
    let code: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//") && !line.starts_with("#["))
        .collect();
    let code = code.join(" ").replace("pub(crate) ", "");
    for part in code.split("fn hippos_").skip(1) {
        let Some((name, rest)) = part.split_once('(') else {
            continue;
        };
        let Some((arguments, behind)) = closed(rest) else {
            continue;
        };
        let returned = behind.split(';').next().unwrap_or("");
        let mut types = vec![rust_returned(returned)];
        types.extend(rust_fields(arguments).map(|(_, kind)| kind));
        declared.functions.insert(format!("hippos_{name}"), types);
    }
    for part in code.split("struct hippos_").skip(1) {
        let Some((name, rest)) = part.split_once(" {") else {
            continue;
        };
        let body = rest.split('}').next().unwrap_or("");
        let fields: Vec<(&str, String)> = rust_fields(body).collect();
        let name = format!("hippos_{name}");
        if fields.iter().any(|(_, kind)| kind.contains("c_void*[")) {
            let words = fields.iter().map(|(_, kind)| words(kind)).sum();
            declared.words.insert(name.clone(), words);
        }
        // A key of the kernel's is not ours to lay out.
        if !body.contains("bindings::static_key") {
            let fields = fields.iter().map(|(name, kind)| format!("{name}: {kind}"));
            declared.structs.insert(name, fields.collect());
        }
    }
    for part in code.split("const HIPPOS_").skip(1) {
        let value = part.split_once(": ").and_then(|(name, rest)| {
            let (_, value) = rest.split_once(';')?.0.split_once(" = ")?;
            Some((format!("HIPPOS_{name}"), number(value)?))
        });
        declared.values.extend(value);
    }
    let rows = code
        .split_once(" layout! {")
        .and_then(|(_, rest)| rest.split_once('}'));
    for row in rows.map_or("", |(rows, _)| rows).split(';') {
        let layout = row.trim().split_once(": ").and_then(|(name, rest)| {
            let (size, rest) = rest.split_once(" bytes, ")?;
            let (last, at) = rest.split_once(" at ")?;
            Some((name.to_owned(), format!("{size}, {last}, {at}")))
        });
        declared.layouts.extend(layout);
    }
    for part in code.split(" type ").skip(1) {
        if let Some((name, kind)) = part.split_once(" = ") {
            let kind = rust_type(kind.split(';').next().unwrap_or(""));
            declared.aliases.insert(name.to_owned(), kind);
        }
    }
    declared
}

/// How many words a field has that is pointers.
fn words(kind: &str) -> usize {
    let numbers = kind
        .split(['[', ']'])
        .filter_map(|part| part.parse::<usize>().ok());
    numbers.product()
}

fn rust_returned(text: &str) -> String {
    text.trim()
        .strip_prefix("-> ")
        .map_or("void".to_owned(), rust_type)
}

/// `name: type` of each.
fn rust_fields(list: &str) -> impl Iterator<Item = (&str, String)> {
    split(list).into_iter().filter_map(|one| {
        let (name, kind) = one.split_once(": ")?;
        Some((name.trim(), rust_type(kind)))
    })
}

fn rust_type(kind: &str) -> String {
    let kind = kind.trim().trim_start_matches("bindings::");
    if let Some(pointed) = kind.strip_prefix("*mut ") {
        return format!("{}*", rust_type(pointed));
    }
    if let Some(pointed) = kind.strip_prefix("*const ") {
        return format!("const {}*", rust_type(pointed));
    }
    if let Some(array) = kind
        .strip_prefix('[')
        .and_then(|kind| kind.strip_suffix(']'))
    {
        let (of, len) = array.rsplit_once("; ").unwrap_or((array, ""));
        // The outermost comes first in C.
        let of = rust_type(of);
        let at = of.find('[').unwrap_or(of.len());
        let (base, inner) = of.split_at(at);
        return format!("{base}[{len}]{inner}");
    }
    let is_function = kind
        .strip_prefix("unsafe extern \"C\" fn(")
        .and_then(closed);
    if let Some((arguments, behind)) = is_function {
        let mut types = vec![rust_returned(behind)];
        types.extend(split(arguments).iter().map(|kind| rust_type(kind)));
        return function(&types);
    }
    kind.to_owned()
}

/// The text before the parenthesis that closes an open one, and the text behind it.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Splits at commas outside of parentheses and brackets.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(list[from..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: &str = "
        /* A comment; with a semicolon. */
#define HIPPOS_REPLY 0x10000
        enum hippos_kind { HIPPOS_HOOK, HIPPOS_XDP };
        typedef u32 hippos_receive_fn(void *private, struct sk_buff *skb);
        struct hippos_handler {
            hippos_receive_fn *receive;
            u8 why[2][3];
            enum hippos_kind kind;
        } __aligned(4);
        static_assert(sizeof(struct hippos_handler) == 24 &&
                      offsetof(struct hippos_handler, kind) == 16);
        struct hippos_poll { long a; };
        static_assert(sizeof(struct hippos_poll) == 8 * sizeof(long));
        struct sk_buff *hippos_reply(const struct sk_buff *skb, u8 **payload,
                                     int (*run)(void *data));
        void __cold hippos_nothing(void);
        static inline u64 hippos_inline(void) { return 1; }
    ";
    const RUST: &str = "
        /// `struct hippos_handler`.
        #[repr(C, align(4))]
        pub(crate) struct hippos_handler {
            pub(crate) receive: Receive,
            pub(crate) why: [[u8; 3]; 2],
            pub(crate) kind: c_uint,
        }
        pub(crate) struct hippos_poll {
            private: [*mut c_void; 8],
        }
        layout! {
            hippos_handler: 24 bytes, kind at 16;
        }
        pub(crate) const HIPPOS_REPLY: u32 = 0x10000;
        pub(crate) const HIPPOS_XDP: c_uint = 1;
        pub(crate) type Receive = unsafe extern \"C\" fn(*mut c_void, *mut sk_buff) -> u32;
        extern \"C\" {
            pub(crate) fn hippos_reply(
                skb: *const sk_buff,
                payload: *mut *mut u8,
                run: unsafe extern \"C\" fn(*mut c_void) -> c_int,
            ) -> *mut sk_buff;
            pub(crate) fn hippos_nothing();
        }
    ";

    fn found(c: &str, rust: &str) -> Vec<String> {
        let findings = compare(&of_c(c), &of_rust(rust));
        findings.into_iter().map(|one| one.what).collect()
    }

    #[test]
    fn equal_declarations_agree() {
        assert_eq!(found(C, RUST), Vec::<String>::new());
        assert_eq!(of_rust(RUST).functions.len(), 2);
        assert_eq!(of_rust(RUST).structs.len(), 2);
    }

    #[test]
    fn each_difference_is_found() {
        for (right, wrong, what) in [
            ("*const sk_buff", "*mut sk_buff", "hippos_reply()"),
            ("*mut *mut u8", "*mut u8", "hippos_reply()"),
            (
                "fn(*mut c_void) -> c_int",
                "fn(*mut c_void)",
                "hippos_reply()",
            ),
            (
                "hippos_nothing()",
                "hippos_nothing() -> u32",
                "hippos_nothing()",
            ),
            ("hippos_nothing", "hippos_unknown", "hippos_unknown()"),
            ("[[u8; 3]; 2]", "[[u8; 2]; 3]", "struct hippos_handler"),
            ("kind: c_uint", "kind: u64", "struct hippos_handler"),
            (
                "*mut sk_buff) -> u32",
                "*mut sk_buff) -> u64",
                "struct hippos_handler",
            ),
            ("c_void; 8", "c_void; 7", "hippos_poll has 7 words"),
            ("24 bytes", "32 bytes", "layout of hippos_handler"),
            ("= 0x10000", "= 0x1000", "HIPPOS_REPLY is 4096"),
            (
                "HIPPOS_XDP: c_uint = 1",
                "HIPPOS_XDP: c_uint = 2",
                "HIPPOS_XDP is 2",
            ),
            ("HIPPOS_XDP", "HIPPOS_XDR", "HIPPOS_XDR is 1"),
            ("kind at 16", "kind at 20", "layout of hippos_handler"),
            (
                "hippos_handler: 24",
                "hippos_other: 24",
                "layout of hippos_handler",
            ),
        ] {
            let wrong = RUST.replacen(right, wrong, 1);
            let found = found(C, &wrong);
            assert!(
                found.len() == 1 && found[0].contains(what),
                "{what}: {found:?}"
            );
        }
    }
}
