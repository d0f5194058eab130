// SPDX-License-Identifier: MIT

//! Routes: the pools of a key's commands, and the policy for their answers.

/// The most pieces of a split value.
pub(crate) const PIECES_MAX: usize = 8192;

/// The smallest piece that may be configured, in bytes.
pub(crate) const PIECE_MIN: u32 = 1024;

/// A class of commands, for routes and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `get`, `gets`, `mg`, `me`.
    Get,
    /// `set` and its variants, `ms`.
    Set,
    /// `delete`, `md`.
    Delete,
    /// `incr`, `decr`, `ma`.
    Arith,
    /// `touch`, `gat`, `gats`.
    Touch,
}

impl Class {
    /// All classes, with their names in the configuration.
    pub const ALL: [(Class, &'static str); 5] = [
        (Class::Get, "get"),
        (Class::Set, "set"),
        (Class::Delete, "delete"),
        (Class::Arith, "arith"),
        (Class::Touch, "touch"),
    ];

    /// The class of a complete request about one key.
    pub fn of(request: &[u8]) -> Self {
        use hippos_proto::binary::{non_quiet, op, REQUEST};
        if let [REQUEST, opcode, ..] = request {
            return match non_quiet(*opcode).unwrap_or(*opcode) {
                op::GET | op::GETK => Class::Get,
                op::DELETE => Class::Delete,
                op::INCREMENT | op::DECREMENT => Class::Arith,
                op::TOUCH | op::GAT | op::GATK => Class::Touch,
                _ => Class::Set,
            };
        }
        match request {
            [b'm', b'g' | b'e', ..] => Class::Get,
            [b'm', b'd', ..] | [b'd', b'e', b'l', ..] => Class::Delete,
            [b'm', b'a', ..] | [b'i', ..] | [b'd', ..] => Class::Arith,
            [b't', ..] => Class::Touch,
            _ => Class::Set,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// When a change to several pools is answered. It is sent to every pool at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Write {
    /// When all have answered: with the first error, or else the first pool's answer.
    #[default]
    AllSync,
    /// When more than half have made the change.
    AllMajority,
    /// When one has made the change.
    AllFastest,
    /// When the first pool has answered.
    AllAsync,
}

impl Write {
    /// The policy of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "all_sync" => Write::AllSync,
            "all_majority" => Write::AllMajority,
            "all_fastest" => Write::AllFastest,
            "all_async" => Write::AllAsync,
            _ => return None,
        })
    }
}

/// The pool that a value is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Read {
    /// The first; the next one if a node fails or is ejected.
    #[default]
    Failover,
    /// The same, and also the next one on a miss.
    MissFailover,
    /// All at once: the first hit is the answer.
    Fastest,
    /// Each in turn; the next one if a node fails or is ejected.
    Spread,
}

impl Read {
    /// The policy of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "failover" => Read::Failover,
            "miss_failover" => Read::MissFailover,
            "fastest" => Read::Fastest,
            "spread" => Read::Spread,
            _ => return None,
        })
    }
}

/// The move of a pool's keys to another pool, in three steps of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The new pool.
    pub to: usize,
    /// Its start, in seconds since 1970.
    pub start: u64,
    /// The length of a step, in seconds.
    pub interval: u64,
}

/// The limits of a route, for all workers together; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Commands a second.
    pub requests: u64,
    /// Bytes of commands a second.
    pub bytes: u64,
    /// Commands in flight.
    pub in_flight: u32,
}

impl Limit {
    /// Whether any limit is set.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }
}

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in metrics.
    pub name: String,
    /// The prefix of its keys.
    pub prefix: Vec<u8>,
    /// Bit `n`: it matches commands of class number `n`.
    pub commands: u8,
    /// The pools, each with a copy. Not empty.
    pub pools: Vec<usize>,
    /// When changes are answered.
    pub write: Write,
    /// Which copy is read, in the order of `near`.
    pub read: Read,
    /// The pools, with those of the own zone first.
    pub pools_by_zone: Vec<usize>,
    /// The pool that is asked after a miss, and whose value is stored in the first.
    pub warm: Option<usize>,
    /// A pool that also gets the commands about some keys, and whose answers are ignored; the number of selected hashes
    /// of 2^32.
    pub shadow: Option<(usize, u64)>,
    /// The migration of the first pool.
    pub migrate: Option<Migration>,
    /// Its limits.
    pub limit: Limit,
    /// Of several clients that miss a key, one gets the miss, and the others wait this many microseconds for the value;
    /// 0 if each gets the miss.
    pub single_flight: u64,
    /// Its items are locks, for at most this many seconds; 0 if they are not.
    pub lock: u32,
    /// Values of more bytes are split over several items; 0 if they are not.
    pub split: u32,
}

/// The pools of a route at a certain time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Pools to read from, in order.
    pub read: Vec<usize>,
    /// The route's read policy.
    pub policy: Read,
    /// The route's warm pool.
    pub warm: Option<usize>,
    /// The pools to change, in order.
    pub write: Vec<usize>,
    /// The pools in which a changed key is deleted.
    pub clear: Vec<usize>,
}

impl Route {
    /// The default route of every key to `pool`, for some classes.
    pub fn to(pool: usize, commands: u8) -> Self {
        Self {
            name: "default".to_owned(),
            prefix: Vec::new(),
            commands,
            pools: vec![pool],
            write: Write::default(),
            read: Read::default(),
            pools_by_zone: vec![pool],
            warm: None,
            shadow: None,
            migrate: None,
            limit: Limit::default(),
            single_flight: 0,
            lock: 0,
            split: 0,
        }
    }

    /// Whether one answer of one node is sufficient.
    pub fn is_plain(&self) -> bool {
        self.pools.len() == 1
            && self.warm.is_none()
            && self.migrate.is_none()
            && self.single_flight == 0
            && self.split == 0
    }

    /// Whether it matches commands of every class.
    pub fn is_for_all(&self) -> bool {
        self.commands.count_ones() as usize == Class::ALL.len()
    }

    /// Whether it matches `key` in commands of `class`.
    pub fn takes(&self, key: &[u8], class: Class) -> bool {
        key.starts_with(&self.prefix) && self.commands >> class as u8 & 1 != 0
    }

    /// The pools at `now`, in seconds since 1970.
    pub fn plan(&self, now: u64) -> Plan {
        let mut plan = Plan {
            read: self.pools_by_zone.clone(),
            policy: self.read,
            warm: self.warm,
            write: self.pools.clone(),
            clear: self.warm.into_iter().collect(),
        };
        if let Some(Migration {
            to,
            start,
            interval,
        }) = self.migrate
        {
            let from = self.pools[0];
            let phase = now.checked_sub(start).map(|past| past / interval.max(1));
            match phase {
                None => {}
                // An item changed now must not be read later from the old pool.
                Some(0) => plan.clear.push(to),
                Some(1) => {
                    (plan.read, plan.write) = (vec![to], vec![to]);
                    plan.clear.push(from);
                    plan.warm = Some(from);
                }
                Some(_) => (plan.read, plan.write) = (vec![to], vec![to]),
            }
        }
        plan
    }
}

/// The request with its time to live limited to `most` seconds from `now`. `None` if it does not set one.
pub fn cap_ttl(parts: &[&[u8]; 3], most: u32, now: u64) -> Option<Vec<u8>> {
    use hippos_proto::binary::{non_quiet, op, HEADER, REQUEST};
    let mut request = parts[0].to_vec();
    if let [REQUEST, opcode, ..] = *parts[0] {
        let at = match non_quiet(opcode).unwrap_or(opcode) {
            op::SET | op::ADD | op::REPLACE => HEADER + 4,
            op::TOUCH | op::GAT | op::GATK => HEADER,
            op::INCREMENT | op::DECREMENT => HEADER + 16,
            _ => return None,
        };
        let field: &mut [u8; 4] = request.get_mut(at..at + 4)?.try_into().ok()?;
        let old = i32::from_be_bytes(*field);
        if at == HEADER + 16 && old == -1 {
            return None;
        }
        *field = capped(old, most, now).to_be_bytes();
        return Some(request);
    }
    let mut words: Vec<Vec<u8>> = request
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    let cap = |word: &[u8]| {
        let old = hippos_proto::number::parse_i32(word)?;
        Some(capped(old, most, now).to_string().into_bytes())
    };
    match words.first()?.as_slice() {
        b"set" | b"add" | b"replace" | b"cas" => *words.get_mut(3)? = cap(words.get(3)?)?,
        b"touch" => *words.get_mut(2)? = cap(words.get(2)?)?,
        verb @ (b"ms" | b"mg" | b"ma") => {
            let store = verb == b"ms";
            let mut found = false;
            for word in words.iter_mut().skip(2 + usize::from(store)) {
                let (&letter, number) = word.split_first()?;
                if is_time_to_live(letter) {
                    let number = cap(number)?;
                    *word = [&[letter][..], &number].concat();
                    found |= letter == b'T';
                }
            }
            if store && !found {
                words.push(format!("T{most}").into_bytes());
            }
        }
        _ => return None,
    }
    Some([&words.join(&b' '), parts[1], parts[2]].concat())
}

/// Whether a meta flag's argument is the item's time to live.
fn is_time_to_live(letter: u8) -> bool {
    hippos_proto::FLAGS
        .iter()
        .any(|flag| flag.letter == letter && flag.argument == hippos_proto::Argument::TimeToLive)
}

/// The time to live, limited to `most` seconds from `now`.
pub fn capped(old: i32, most: u32, now: u64) -> i32 {
    use hippos_proto::RELATIVE_MAX;
    let most = most.min(RELATIVE_MAX as u32) as i32;
    let left = match i64::from(old) {
        0 => i64::MAX,
        // It has expired already.
        left if left < 0 => return old,
        left if left <= RELATIVE_MAX => left,
        absolute => absolute - now as i64,
    };
    if left <= i64::from(most) {
        old
    } else {
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_never_reads_what_was_changed_elsewhere() {
        let route = Route {
            migrate: Some(Migration {
                to: 1,
                start: 1000,
                interval: 10,
            }),
            ..Route::to(0, 31)
        };
        for (now, read, warm, write, clear) in [
            (999, 0, None, 0, vec![]),
            (1000, 0, None, 0, vec![1]),
            (1009, 0, None, 0, vec![1]),
            (1010, 1, Some(0), 1, vec![0]),
            (1020, 1, None, 1, vec![]),
        ] {
            let plan = route.plan(now);
            assert_eq!(
                (plan.read, plan.warm, plan.write, plan.clear),
                (vec![read], warm, vec![write], clear),
                "{now}"
            );
        }
    }

    #[test]
    fn a_time_to_live_is_capped_in_every_protocol() {
        let now = 1_700_000_000;
        let text = |line: &str| {
            let parts = [line.as_bytes(), b"\r\n", b""];
            cap_ttl(&parts, 10, now).map(|bytes| String::from_utf8(bytes).unwrap())
        };
        for (line, want) in [
            ("set a 0 0 1", Some("set a 0 10 1\r\n")),
            ("set a 0 9 1 noreply", Some("set a 0 9 1 noreply\r\n")),
            ("cas a 0 -1 1 5", Some("cas a 0 -1 1 5\r\n")),
            ("add a 0 1700000005 1", Some("add a 0 1700000005 1\r\n")),
            ("add a 0 1700000011 1", Some("add a 0 10 1\r\n")),
            ("touch a 100", Some("touch a 10\r\n")),
            ("append a 0 0 1", None),
            ("delete a", None),
            ("ms a 1 T0 c", Some("ms a 1 T10 c\r\n")),
            ("ms a 1 c", Some("ms a 1 c T10\r\n")),
            ("mg a v N60", Some("mg a v N10\r\n")),
            ("mg a v", Some("mg a v\r\n")),
        ] {
            assert_eq!(text(line).as_deref(), want, "{line}");
        }
        let mut packet = vec![0; 33];
        (packet[0], packet[1], packet[4]) = (0x80, 1, 8);
        let capped = cap_ttl(&[&packet, b"", b""], 10, now).unwrap();
        assert_eq!(capped[28..32], [0, 0, 0, 10]);
    }

    #[test]
    fn a_command_s_class_follows_from_its_first_bytes() {
        for (request, class) in [
            ("mg a", Class::Get),
            ("me a", Class::Get),
            ("md a", Class::Delete),
            ("ma a", Class::Arith),
            ("ms a", Class::Set),
            ("delete a", Class::Delete),
            ("decr a", Class::Arith),
            ("incr a", Class::Arith),
            ("touch a", Class::Touch),
            ("append a", Class::Set),
            ("\u{80}", Class::Set),
        ] {
            assert_eq!(Class::of(request.as_bytes()), class, "{request}");
        }
        assert_eq!(Class::of(&[0x80, 0x09]), Class::Get);
        assert_eq!(Class::of(&[0x80, 0x14]), Class::Delete);
    }
}
