// SPDX-License-Identifier: GPL-2.0-only
//! Rare commands: statistics, and those that configure a server.
//!
//! Commands for features that Hippos does not have are checked, and answered as memcached does if the feature is
//! present, or disabled.

use hippos_invariant::Exact;
use hippos_proto::number::{is_blank, parse_i32, parse_u32};
use hippos_proto::reply::{self, Out};
use hippos_proto::token::Tokens;
use hippos_store::Platform;

use crate::host_stats::{Change, Refusal};
use crate::refusals::RefusalCounter;
use crate::session::listing::{Classes, Listing};
use crate::session::state::{Session, State, Transport};
use crate::Engine;

/// memcached has classes 1 to 63.
const CLASSES_MAX: u32 = 64;

const USAGE: &[u8] = b"CLIENT_ERROR usage: stats detail on|off|dump\r\n";
const ILLEGAL_CLASS: &[u8] = b"CLIENT_ERROR Illegal slab id\r\n";
const BAD_CLASS: &[u8] = b"BADCLASS invalid class id\r\n";
const BAD_CLASSES: &[u8] = b"BADCLASS invalid src or dst class id\r\n";
const SAME_CLASS: &[u8] = b"SAME src and dst class are identical\r\n";
const NO_SPARE: &[u8] = b"NOSPARE source class has no spare pages\r\n";
const TOO_SMALL: &[u8] = b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n";
const NOT_BYTES: &[u8] = b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n";
const UNABLE: &[u8] = b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n";
const LONG_SLEEP: &[u8] = b"CLIENT_ERROR sleep must be one second or less\r\n";
const TOO_HOT: &[u8] = b"ERROR hot and warm pcts must not exceed 80\r\n";
const BAD_FACTOR: &[u8] = b"ERROR hot/warm age factors must be greater than 0\r\n";
const CRAWLER_OFF: &[u8] = b"CLIENT_ERROR lru crawler disabled\r\n";
const CRAWLER_ON: &[u8] = b"ERROR failed to start lru crawler thread\r\n";
const NO_TLS: &[u8] = b"Error TLS not enabled\r\n";

// Replies to clients that may not use the commands; the first and the last of the statistics are memcached's texts.
pub(crate) const FLUSH_REFUSED: &[u8] = b"CLIENT_ERROR flush_all not allowed\r\n";
pub(crate) const VERBOSITY_REFUSED: &[u8] = b"CLIENT_ERROR verbosity not allowed\r\n";
const MEMORY_REFUSED: &[u8] = b"CLIENT_ERROR cache_memlimit not allowed\r\n";
const MEMORY_REFUSED_UDP: &[u8] = b"CLIENT_ERROR cache_memlimit not allowed over UDP\r\n";
const SLABS_REFUSED: &[u8] = b"CLIENT_ERROR slabs not allowed\r\n";
const LRU_REFUSED: &[u8] = b"CLIENT_ERROR lru not allowed\r\n";
const CRAWLER_REFUSED: &[u8] = b"CLIENT_ERROR lru_crawler not allowed\r\n";
const CERTS_REFUSED: &[u8] = b"CLIENT_ERROR refresh_certs not allowed\r\n";
const RESET_REFUSED: &[u8] = b"CLIENT_ERROR stats reset not allowed\r\n";
const DETAIL_REFUSED: &[u8] = b"CLIENT_ERROR stats detail not allowed\r\n";
const CACHEDUMP_REFUSED: &[u8] = b"CLIENT_ERROR stats cachedump not allowed\r\n";

impl<P: Platform> Session<'_, P> {
    /// Serves a rare command.
    #[inline(never)]
    pub(super) fn admin(&mut self, tokens: &Tokens<'_>, out: &mut impl Out) {
        let engine = self.engine;
        let noreply = tokens.noreply();
        if let Some(line) = self.refusal(tokens) {
            if !noreply {
                out.put(line);
            }
            return;
        }
        let line = match tokens.at(0) {
            b"stats" => return self.stats(tokens, out),
            b"slabs" => slabs(engine, tokens),
            b"lru" => (lru(tokens), noreply),
            b"lru_crawler" => match self.crawler(tokens) {
                Some(line) => (line, false),
                None => return,
            },
            b"cache_memlimit" => match tokens.len() {
                2 | 3 => (self.memory_limit(tokens), noreply),
                _ => (reply::ERROR, false),
            },
            b"refresh_certs" => (NO_TLS, false),
            b"watch" => (self.begin_watch(tokens), noreply),
            // There is no external storage.
            _ => (reply::ERROR, false),
        };
        if !line.1 {
            out.put(line.0);
        }
    }

    /// The error for a client that may not use the command.
    fn refusal(&self, tokens: &Tokens<'_>) -> Option<&'static [u8]> {
        let line = match (tokens.at(0), tokens.at(1)) {
            // For any setting, because the source of a datagram may be forged.
            (b"cache_memlimit", _) if self.transport == Transport::Udp => {
                self.engine.count_refused(RefusalCounter::Admin);
                self.engine.host_stats.refused(self.number, Refusal::Admin);
                return Some(MEMORY_REFUSED_UDP);
            }
            (b"cache_memlimit", _) => MEMORY_REFUSED,
            (b"slabs", _) => SLABS_REFUSED,
            (b"lru", _) => LRU_REFUSED,
            (b"lru_crawler", _) => CRAWLER_REFUSED,
            (b"refresh_certs", _) => CERTS_REFUSED,
            (b"stats", b"reset") => RESET_REFUSED,
            (b"stats", b"detail") => DETAIL_REFUSED,
            (b"stats", b"cachedump") => CACHEDUMP_REFUSED,
            _ => return None,
        };
        (!self.administers()).then_some(line)
    }

    fn stats(&mut self, tokens: &Tokens<'_>, out: &mut impl Out) {
        let engine = self.engine;
        let listing = match tokens.at(1) {
            [] => Some(Listing::stats()),
            b"reset" => {
                engine.reset();
                self.report(Change::Reset);
                out.put(reply::RESET);
                return;
            }
            b"detail" => match tokens.at(2) {
                how @ (b"on" | b"off") => {
                    engine.set_detail(how == b"on");
                    self.report(Change::Detail(how == b"on"));
                    out.put(reply::OK);
                    return;
                }
                b"dump" => Some(Listing::detail()),
                _ => {
                    out.put(USAGE);
                    return;
                }
            },
            b"settings" => Some(Listing::settings()),
            b"conns" => Some(Listing::connections()),
            b"cachedump" => {
                if tokens.len() < 4 {
                    out.put(reply::BAD_LINE);
                    return;
                }
                let (Some(class), Some(limit)) = (parse_u32(tokens.at(2)), parse_u32(tokens.at(3)))
                else {
                    out.put(reply::BAD_FORMAT);
                    return;
                };
                if class >= CLASSES_MAX {
                    out.put(ILLEGAL_CLASS);
                    return;
                }
                // 0 means no limit, and class 0 means none.
                let limit = if limit == 0 { u32::MAX } else { limit };
                let bits = match class.checked_sub(1) {
                    Some(class) => 1u64.checked_shl(class).unwrap_or(0),
                    None => 0,
                };
                Some(Listing::cachedump(engine, Classes(bits), limit))
            }
            // Features that do not exist have no statistics.
            b"extstore" | b"proxy" | b"proxyfuncs" | b"proxybe" => Some(Listing::nothing()),
            name => Listing::named(name),
        };
        match listing {
            Some(listing) => self.state = State::Listing(listing),
            None => out.put(reply::ERROR),
        }
    }

    /// `lru_crawler`: the reply line, or `None` while a dump is in progress.
    fn crawler(&mut self, tokens: &Tokens<'_>) -> Option<&'static [u8]> {
        let word = tokens.at(2);
        Some(match (tokens.len(), tokens.at(1)) {
            (3, b"crawl" | b"metadump" | b"mgdump") if !self.engine.store.crawler() => CRAWLER_OFF,
            // A pass reclaims expired items of all classes.
            (3, b"crawl") => match classes(word) {
                Some(_) => {
                    self.engine.store.platform().wake();
                    reply::OK
                }
                None => BAD_CLASS,
            },
            (3, b"metadump" | b"mgdump") => match classes(word) {
                Some(classes) => {
                    let engine = self.engine;
                    self.state = State::Listing(if tokens.at(1) == b"metadump" {
                        Listing::metadump(engine, classes)
                    } else {
                        Listing::mgdump(engine, classes)
                    });
                    return None;
                }
                None => BAD_CLASS,
            },
            (3, b"tocrawl") => match parse_u32(word) {
                Some(_) => reply::OK,
                None => reply::BAD_FORMAT,
            },
            (3, b"sleep") => match parse_u32(word) {
                Some(us) if us > 1_000_000 => LONG_SLEEP,
                Some(_) => reply::OK,
                None => reply::BAD_FORMAT,
            },
            (2, b"enable") => {
                if self.engine.store.set_crawler(true) {
                    CRAWLER_ON
                } else {
                    self.report(Change::Crawler(true));
                    reply::OK
                }
            }
            (2, b"disable") => {
                if self.engine.store.set_crawler(false) {
                    self.report(Change::Crawler(false));
                }
                reply::OK
            }
            _ => reply::ERROR,
        })
    }

    /// `cache_memlimit`, in MiB: at most what the administrator set.
    fn memory_limit(&self, tokens: &Tokens<'_>) -> &'static [u8] {
        match parse_u32(tokens.at(1)) {
            None => reply::ERROR,
            Some(..8) => TOO_SMALL,
            Some(1_000_000_001..) => NOT_BYTES,
            Some(mib) => match (mib as usize).checked_mul(1 << 20) {
                Some(bytes) if self.engine.limit_memory(bytes) => {
                    self.report(Change::Memory(mib));
                    reply::OK
                }
                _ => UNABLE,
            },
        }
    }
}

/// `all`, `hash`, or class numbers separated by commas.
fn classes(word: &[u8]) -> Option<Classes> {
    if word == b"all" || word == b"hash" {
        return Some(Classes::ALL);
    }
    let mut bits = 0u64;
    for number in word.split(|&byte| byte == b',') {
        match parse_u32(number) {
            Some(class @ 1..CLASSES_MAX) => bits |= 1 << class.sub_exact(1),
            _ => return None,
        }
    }
    Some(Classes(bits))
}

/// `slabs`: the reply line and whether it is suppressed. The store moves memory between classes itself, so clients
/// cannot.
fn slabs<P: Platform>(engine: &Engine<P>, tokens: &Tokens<'_>) -> (&'static [u8], bool) {
    match tokens.at(1) {
        b"reassign" if tokens.len() == 4 => {
            let (Some(from), Some(to)) = (parse_i32(tokens.at(2)), parse_i32(tokens.at(3))) else {
                return (reply::BAD_FORMAT, false);
            };
            let classes = engine.store.classes() as i32;
            let line = if from == to {
                SAME_CLASS
            } else if !(-1..=classes).contains(&from) || !(0..=classes).contains(&to) {
                BAD_CLASSES
            } else {
                NO_SPARE
            };
            (line, false)
        }
        b"automove" if tokens.len() >= 3 => {
            let noreply = tokens.noreply();
            let line = match tokens.at(2) {
                b"ratio" | b"freeratio" => match sign(tokens.at(3)) {
                    Some(_) => reply::OK,
                    None => reply::ERROR,
                },
                b"window" => match parse_u32(tokens.at(3)) {
                    Some(_) => reply::OK,
                    None => reply::ERROR,
                },
                level => match parse_u32(level) {
                    Some(0..=2) => reply::OK,
                    Some(_) => reply::ERROR,
                    None => reply::BAD_FORMAT,
                },
            };
            (line, noreply)
        }
        _ => (reply::ERROR, false),
    }
}

/// `lru`: there is no LRU, but the words are checked.
fn lru(tokens: &Tokens<'_>) -> &'static [u8] {
    let word = tokens.at(2);
    match tokens.at(1) {
        b"tune" if tokens.len() >= 6 => {
            let hot = parse_u32(word);
            let warm = parse_u32(tokens.at(3));
            let factors = (sign(tokens.at(4)), sign(tokens.at(5)));
            match (hot, warm, factors) {
                (Some(hot), Some(warm), (Some(a), Some(b))) => {
                    // Wraps, as memcached's sum does.
                    if hot.wrapping_add(warm) > 80 {
                        TOO_HOT
                    } else if a <= 0 || b <= 0 {
                        BAD_FACTOR
                    } else {
                        reply::OK
                    }
                }
                _ => reply::ERROR,
            }
        }
        b"mode" if tokens.len() >= 3 => match word {
            b"flat" | b"segmented" => reply::OK,
            _ => reply::ERROR,
        },
        b"temp_ttl" if tokens.len() >= 3 => match parse_i32(word) {
            Some(_) => reply::OK,
            None => reply::ERROR,
        },
        _ => reply::ERROR,
    }
}

/// The sign of a decimal fraction; `None` if the word is not one. Blanks may come first, and a blank ends the number, as
/// in C; an exponent, hexadecimal digits, `inf` and `nan` are refused. The kernel has no floating-point numbers.
fn sign(word: &[u8]) -> Option<i8> {
    let mut parts = word.split(|&byte| is_blank(byte));
    let word = parts.find(|part| !part.is_empty())?;
    let (word, negative) = match word {
        [b'-', rest @ ..] => (rest, true),
        [b'+', rest @ ..] => (rest, false),
        rest => (rest, false),
    };
    let mut parts = word.splitn(2, |&byte| byte == b'.');
    let (whole, fraction) = (parts.next()?, parts.next().unwrap_or(&[]));
    let digits = || whole.iter().chain(fraction);
    if digits().next().is_none() || !digits().all(u8::is_ascii_digit) {
        return None;
    }
    if digits().all(|&digit| digit == b'0') {
        return Some(0);
    }
    Some(if negative { -1 } else { 1 })
}
