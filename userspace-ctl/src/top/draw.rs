// SPDX-License-Identifier: GPL-2.0-only
//! Draws a frame of `top`.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, Widget};

use crate::answer::duration;
use crate::latency::shown;
use crate::top::model::Model;

/// Columns of a printed frame.
const COLUMNS: u16 = 80;
/// Rows of the head: title, rates, memory.
const HEAD: u16 = 3;
/// Rows of the table of receive paths, with its titles and an empty row after it.
const PATHS: u16 = 6;

/// The contents of the last line.
pub(crate) struct Footer<'f> {
    pub(crate) text: &'f str,
    /// The server does not answer.
    pub(crate) is_error: bool,
}

/// Draws a frame into all of `area`; rows that do not fit are left out.
pub(crate) fn draw(model: &Model, footer: &Footer<'_>, area: Rect, buffer: &mut Buffer) {
    let notes = notes(model);
    // On a small terminal, some rows are reserved for the tables.
    let most = area.height.saturating_sub(HEAD + PATHS + 5);
    let notes_height = u16::try_from(notes.len()).unwrap_or(u16::MAX).min(most);
    let [head, upper, lower, below, last] = Layout::vertical([
        Constraint::Length(HEAD),
        Constraint::Length(PATHS),
        Constraint::Min(2),
        Constraint::Length(notes_height),
        Constraint::Length(1),
    ])
    .areas(area);
    Paragraph::new(title_lines(model)).render(head, buffer);
    let halves = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]);
    let [left, right] = halves.areas(upper);
    paths(model).render(left, buffer);
    cpus(model, right.height).render(right, buffer);
    let [left, right] = halves.areas(lower);
    classes(model).render(left, buffer);
    talkers(model).render(right, buffer);
    Paragraph::new(notes).render(below, buffer);
    let style = match footer.is_error {
        true => Style::new().fg(Color::Red),
        false => Style::new().add_modifier(Modifier::DIM),
    };
    Paragraph::new(Span::styled(footer.text, style)).render(last, buffer);
}

/// A frame with all of its rows, as lines of text.
pub(crate) fn text(model: &Model) -> String {
    let rows = model.classes.len().max(model.talkers.len());
    let cpus = model.cpus.len().saturating_sub(usize::from(PATHS) - 2);
    let rows = rows + cpus + notes(model).len() + 2;
    let height = u16::try_from(rows).unwrap_or(u16::MAX).min(1000);
    let area = Rect::new(0, 0, COLUMNS, HEAD + PATHS + height);
    let mut buffer = Buffer::empty(area);
    let footer = Footer {
        text: "",
        is_error: false,
    };
    draw(model, &footer, area, &mut buffer);
    lines(&buffer)
}

/// The characters of a buffer, without trailing blanks.
pub(crate) fn lines(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.rows().map(|row| row.y) {
        let mut line = String::new();
        for x in buffer.area.columns().map(|column| column.x) {
            line.push_str(buffer[(x, y)].symbol());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn title_lines(model: &Model) -> Vec<Line<'_>> {
    let color = match model.health {
        "healthy" => Color::Green,
        "serving" => Color::Yellow,
        _ => Color::Red,
    };
    let health = Style::new().fg(color).add_modifier(Modifier::BOLD);
    let up = duration(model.uptime);
    let (port, version) = (model.port, &model.version);
    let ratio = model
        .hit_ratio
        .map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
    vec![
        Line::from(vec![
            Span::styled(model.health, health),
            Span::raw(format!(
                ": {version} on port {port}, up {up}, {} of {} connections",
                model.connections, model.connections_most
            )),
        ]),
        Line::raw(format!(
            "gets {}/s  hits {ratio}  sets {}/s  evictions {}/s",
            count(model.gets),
            count(model.sets),
            count(model.evictions)
        )),
        Line::raw(format!(
            "memory {} MiB at most, {} MiB taken, {} MiB in {} items",
            model.memory_limit >> 20,
            model.memory_held >> 20,
            model.memory_items >> 20,
            model.items
        )),
    ]
}

fn titles(names: &[&'static str]) -> Row<'static> {
    Row::new(names.to_vec()).style(Style::new().add_modifier(Modifier::BOLD))
}

fn paths(model: &Model) -> Table<'_> {
    let row = |path: &crate::top::model::Path| {
        Row::new([path.name.to_owned(), count(path.rate), path.state.clone()])
    };
    let widths = [
        Constraint::Length(11),
        Constraint::Length(9),
        Constraint::Min(8),
    ];
    Table::new(model.paths.iter().map(row), widths).header(titles(&["path", "/s", "IPv4 IPv6"]))
}

/// The CPUs; if there are more of them than rows, the last row is the sum of the rest.
fn cpus(model: &Model, height: u16) -> Table<'_> {
    let rows = usize::from(height.saturating_sub(2)).max(1);
    let of = |name: String, fast: f64, socket: f64, tcp: f64| {
        Row::new([name, count(fast), count(socket), count(tcp)])
    };
    let shown = match model.cpus.len() > rows {
        true => rows - 1,
        false => model.cpus.len(),
    };
    let (shown, rest) = model.cpus.split_at(shown);
    let mut all: Vec<_> = shown
        .iter()
        .map(|cpu| of(cpu.number.to_string(), cpu.fast, cpu.socket, cpu.tcp))
        .collect();
    if !rest.is_empty() {
        let sum = |part: fn(&crate::top::model::Cpu) -> f64| rest.iter().map(part).sum();
        let name = format!("{} others", rest.len());
        all.push(of(
            name,
            sum(|cpu| cpu.fast),
            sum(|cpu| cpu.socket),
            sum(|cpu| cpu.tcp),
        ));
    }
    let widths = [
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    Table::new(all, widths).header(titles(&["CPU", "UDP fast", "UDP sock", "TCP"]))
}

fn classes(model: &Model) -> Table<'_> {
    let row = |class: &crate::top::model::Class| {
        let used = match class.slots {
            0 => 0,
            slots => class.used.saturating_mul(100) / slots,
        };
        let mib = class.size.saturating_mul(class.slots) >> 20;
        Row::new([
            class.number.to_string(),
            class.size.to_string(),
            mib.to_string(),
            format!("{used} %"),
            count(class.evictions),
        ])
    };
    let widths = [
        Constraint::Length(5),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Min(6),
    ];
    Table::new(model.classes.iter().map(row), widths).header(titles(&[
        "class",
        "bytes",
        "MiB",
        "used",
        "evicted/s",
    ]))
}

fn talkers(model: &Model) -> Table<'_> {
    let row = |talker: &crate::top::model::Talker| {
        Row::new([
            talker.peer.clone(),
            bytes(talker.read),
            bytes(talker.written),
            talker.idle.to_string(),
        ])
    };
    let widths = [
        Constraint::Min(16),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(5),
    ];
    Table::new(model.talkers.iter().map(row), widths).header(titles(&[
        "connection",
        "in/s",
        "out/s",
        "idle",
    ]))
}

/// Latency, the hottest keys, refusals, then warnings.
fn notes(model: &Model) -> Vec<Line<'_>> {
    let refused = model.refusals.iter().map(|refused| {
        let line = Line::raw(format!(
            "refused: {}/s {}, {} in all",
            count(refused.rate),
            refused.what,
            refused.total
        ));
        match refused.rate > 0.0 {
            true => line.style(Style::new().fg(Color::Red)),
            false => line,
        }
    });
    let warnings = model.warnings.iter();
    let warnings = warnings.map(|warning| Line::raw(format!("warning: {warning}")));
    let latency = model.latency.iter().map(|times| {
        Line::raw(format!(
            "latency: {} {} p50 {}, p99 {}",
            times.path,
            times.measure,
            shown(times.p50_ns),
            shown(times.p99_ns)
        ))
    });
    let keys = model.keys.iter();
    let keys = keys.map(|(key, rate)| Line::raw(format!("key: {}/s {key}", count(*rate))));
    latency.chain(keys).chain(refused).chain(warnings).collect()
}

/// A number in at most six characters.
pub(crate) fn count(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T"])
}

/// Bytes in at most six characters.
pub(crate) fn bytes(number: f64) -> String {
    scaled(number, 1024.0, &["", "Ki", "Mi", "Gi", "Ti"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while number >= step - 0.5 {
        let Some(next) = units.next() else {
            break;
        };
        number /= step;
        unit = next;
    }
    if unit.is_empty() && (number == 0.0 || number >= 9.95) || number >= 99.95 {
        format!("{number:.0}{unit}")
    } else {
        format!("{number:.1}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::model::{frame, tests::sample, Sort};
    use ratatui::backend::TestBackend;
    use ratatui::Terminal;

    fn drawn(width: u16, height: u16) -> String {
        let model = frame(&sample(1), &sample(2), None, Sort::Rate);
        let footer = Footer {
            text: "q quit",
            is_error: false,
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(&model, &footer, frame.area(), frame.buffer_mut()))
            .unwrap();
        lines(terminal.backend().buffer())
    }

    #[test]
    fn a_terminal_of_80_by_24_shows_every_part() {
        let text = drawn(80, 24);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 24, "{text}");
        assert!(
            lines[0].starts_with("serving: hippos 0.1.0 on port 11211"),
            "{text}"
        );
        assert!(lines[1].contains("gets 100/s  hits 75.0 %"), "{text}");
        assert!(lines[2].contains("64 MiB at most, 32 MiB taken"), "{text}");
        for part in [
            "XDP         30        open open",
            "PRE_ROUTING 20        nat open",
            "CPU       UDP fast",
            "1         40",
            "5     200      0      100 %  3.0",
            "[fd00::1]:5000",
            "1000   2.0Ki",
            "latency: prerouting service p50 512 ns, p99 1024 ns",
            "refused: 2.0/s TCP connections",
            "warning: the fast path for UDP is closed",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert_eq!(lines[23], "q quit");
    }

    #[test]
    fn any_size_of_terminal_can_be_drawn() {
        for (width, height) in [(1, 1), (20, 5), (79, 10), (80, 12), (300, 100)] {
            drawn(width, height);
        }
        assert_eq!(drawn(80, 12).lines().last(), Some("q quit"));
    }

    #[test]
    fn a_printed_frame_has_all_rows_in_80_columns() {
        let mut now = sample(2);
        now.slabs = crate::stats::Stats::of(
            &(1..=60)
                .map(|class| format!("{class}:chunk_size {class}"))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        let text = text(&frame(&sample(1), &now, None, Sort::Name));
        assert!(text.lines().any(|line| line.starts_with("60 ")), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(text.contains("warning:"), "{text}");
    }

    #[test]
    fn numbers_fit_their_columns() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (99.0, "99"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (123_456.0, "123k"),
            (2.5e9, "2.5G"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(bytes(1536.0), "1.5Ki");
    }
}
