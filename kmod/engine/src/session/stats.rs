// SPDX-License-Identifier: GPL-2.0-only
//! The contents of the statistics.

use hippos_invariant::Exact;
use hippos_proto::reply::{self, Cursor, Out};
use hippos_store::{ClassCounter as Class, Counter, Platform};

use crate::class_statistics;
use crate::session::lines::Lines;
use crate::session::listing::{ClassResume, Resume, Summands};
use crate::statistics::{self, Now, Source, Value};
use crate::Engine;

impl<P: Platform> Engine<P> {
    /// The counters that sums are computed from are read once for all pages, because clients subtract one row from
    /// another.
    pub(super) fn stats(&self, lines: &mut Lines<'_, impl Out>, summands: &mut Option<Summands>) {
        let store = &self.store;
        let now = Now {
            host: self.host_stats.host(),
            fast_path: self.host_stats.fast_path(),
            shot: store.snapshot(),
            settings: &self.settings,
            // The store's clock starts at 2.
            uptime: u64::from(store.now().saturating_sub(2)),
            unix: u64::try_from(store.unix()).unwrap_or(0),
            upload_bytes: self.uploads.bytes(),
            memory_max_settable: self.memory_max_settable(),
            watchers: self.watchers(),
            refusal_ages: self.last_refusals.ages(store.now()),
        };
        let summands = *summands.get_or_insert_with(|| Summands {
            get_hits: store.classes_counted(Class::GetHits),
            touch_hits: store.classes_counted(Class::TouchHits),
            get_misses: store.counted(Counter::GetMisses),
            touch_misses: store.counted(Counter::TouchMisses),
        });
        let class = |counter| match counter {
            Class::GetHits => summands.get_hits,
            Class::TouchHits => summands.touch_hits,
            other => store.classes_counted(other),
        };
        let counted = |counter| match counter {
            Counter::GetMisses => summands.get_misses,
            Counter::TouchMisses => summands.touch_misses,
            other => store.counted(other),
        };
        statistics::each(|row| {
            let number = match row.source {
                Source::Zero => 0,
                Source::EngineCounter(tally) | Source::PerCpu(tally) => self.engine_counted(tally),
                Source::Store(counter) => counted(counter),
                Source::Class(counter) => class(counter),
                Source::Sum(hits, misses) => class(hits).wrapping_add(counted(misses)),
                Source::Number(of) => of(&now),
                Source::Host(counter) => match self.host_stats.counted(counter) {
                    None => return lines.absent(),
                    Some(number) => number,
                },
                Source::Value(of) => match of(&now) {
                    None => return lines.absent(),
                    Some(Value::Number(number)) => number,
                    Some(Value::Word(word)) => return lines.words(&[(row.name, word)]),
                    Some(Value::Seconds(us)) => {
                        let (whole, rest) = (us / 1_000_000, us % 1_000_000);
                        return lines.stat(row.name, format_args!("{whole}.{rest:06}"));
                    }
                },
            };
            lines.number(row.name, number);
        });
    }

    pub(super) fn stats_passes(&self, lines: &mut Lines<'_, impl Out>) {
        self.host_stats.pass_counts(&mut |path, reason, count| {
            lines.put(
                format_args!("hippos_pass_{path}{reason}"),
                format_args!("{count}"),
            );
        });
    }

    /// The commands served by each CPU.
    pub(super) fn stats_cpus(&self, lines: &mut Lines<'_, impl Out>) {
        for cpu in 0..self.store.counting_cpus() {
            for counter in statistics::counters_per_cpu() {
                let (name, count) = (counter.name(), self.engine_counted_on(cpu, counter));
                lines.put(format_args!("{cpu}:{name}"), format_args!("{count}"));
            }
        }
    }

    /// Rows of the classes from `resume` on, which advances: changes of classes before it are not shown any more.
    pub(super) fn stats_items(&self, lines: &mut Lines<'_, impl Out>, resume: &mut ClassResume) {
        let store = &self.store;
        while let Some(shot) = store.class(resume.class) {
            let index = resume.class;
            if shot.items == 0 && !resume.begun {
                resume.next(lines);
                continue;
            }
            resume.begun = true;
            for row in class_statistics::ITEMS {
                let number = index.add_exact(1);
                let value = row.value(store, index, &shot);
                lines.put(
                    format_args!("items:{number}:{}", row.name),
                    format_args!("{value}"),
                );
            }
            if lines.full {
                return;
            }
            resume.next(lines);
        }
    }

    /// Like [`stats_items`](Self::stats_items).
    pub(super) fn stats_slabs(&self, lines: &mut Lines<'_, impl Out>, resume: &mut ClassResume) {
        let store = &self.store;
        let block = store.block_size() as u64;
        while let Some(shot) = store.class(resume.class) {
            let index = resume.class;
            if shot.slabs == 0 && !resume.begun {
                resume.next(lines);
                continue;
            }
            if !resume.begun {
                resume.begun = true;
                resume.active = resume.active.add_exact(1);
                resume.slabs = resume.slabs.add_exact(u64::from(shot.slabs));
            }
            for row in class_statistics::SLABS {
                let number = index.add_exact(1);
                let value = row.value(store, index, &shot);
                lines.put(
                    format_args!("{number}:{}", row.name),
                    format_args!("{value}"),
                );
            }
            if lines.full {
                return;
            }
            resume.next(lines);
        }
        lines.number("active_slabs", resume.active);
        lines.number("total_malloced", resume.slabs.mul_exact(block));
    }

    pub(super) fn stats_detail(&self, lines: &mut Lines<'_, impl Out>) {
        const NAME: &[u8] = b"detailed";
        for prefix in self.settings.prefixes.all() {
            let mut buffer = [0; 160];
            let mut line = Cursor::new(&mut buffer);
            line.put(b"PREFIX ");
            line.put(prefix.name());
            for (name, count) in [" get ", " hit ", " set ", " del "]
                .iter()
                .zip(prefix.counts)
            {
                line.put(name.as_bytes());
                line.put_decimal(count);
            }
            line.put(reply::CRLF);
            lines.line(NAME, line.as_bytes());
        }
        if lines.request.is_some() {
            lines.line(NAME, reply::END);
        }
    }

    /// Rows of the sockets from `resume` on, which advances: the host is asked for each socket once, and not again for
    /// each page.
    pub(super) fn stats_connections(&self, lines: &mut Lines<'_, impl Out>, resume: &mut Resume) {
        while let Some((place, socket)) = self.host_stats.socket(resume.place) {
            let id = socket.id;
            // A socket that was closed has no more lines; no line of the next one is skipped.
            if resume.begun.is_some_and(|begun| begun != id) {
                lines.checkpoint();
            }
            *resume = Resume {
                place,
                begun: Some(id),
            };
            let kind = if socket.udp { "udp" } else { "tcp" };
            if socket.udp {
                lines.put(format_args!("{id}:UDP"), format_args!("UDP"));
            }
            lines.put(
                format_args!("{id}:addr"),
                format_args!("{kind}:{}", socket.address),
            );
            if let Some(listen) = socket.listen {
                lines.put(
                    format_args!("{id}:listen_addr"),
                    format_args!("{kind}:{listen}"),
                );
            }
            lines.put(format_args!("{id}:state"), format_args!("{}", socket.state));
            lines.put(
                format_args!("{id}:secs_since_last_cmd"),
                format_args!("{}", socket.idle),
            );
            if let Some((read, written)) = socket.bytes {
                lines.put(
                    format_args!("{id}:hippos_bytes_read"),
                    format_args!("{read}"),
                );
                lines.put(
                    format_args!("{id}:hippos_bytes_written"),
                    format_args!("{written}"),
                );
            }
            if lines.full {
                break;
            }
            lines.checkpoint();
            *resume = Resume {
                place: place.add_exact(1),
                begun: None,
            };
        }
    }
}
