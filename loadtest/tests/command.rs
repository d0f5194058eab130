//! The command itself: exit statuses, reports that are kept, files that are written.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use hippos_load::echo::{Contents, Echo, Faults};
use hippos_load::report::Report;
use hippos_load::workload::{Model, Workload};

fn hippos_load(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hippos-load"))
        .args(args)
        .output()
        .unwrap()
}

fn ok(args: &[&str]) -> String {
    let output = hippos_load(args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn fails(args: &[&str], status: i32) -> String {
    let output = hippos_load(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
    text
}

fn server(contents: Contents) -> Echo {
    Echo::start(
        ([127, 0, 0, 1], 0).into(),
        1,
        false,
        contents,
        Faults::default(),
    )
    .unwrap()
}

fn micro() -> Contents {
    Contents::Model(Box::new(
        Model::new(&Workload::named("micro").unwrap()).unwrap(),
    ))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn run_peak_sweep_and_plot() {
    let server = server(micro());
    let address = server.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let (run, sweep, peak) = (file("run.json"), file("sweep.json"), file("peak.json"));
    let target = [
        "--server",
        &address,
        "--no-fill",
        "--timeout",
        "10s",
        "--warmup",
        "0s",
    ];

    let mut args = vec![
        "run",
        "micro",
        "-r",
        "500",
        "-d",
        "300ms",
        "--interval",
        "100ms",
        "--json",
        text(&run),
    ];
    let svg = file("svg");
    args.extend(["--svg", text(&svg)]);
    let table = ok(&[&args[..], &target].concat());
    assert!(table.contains("p99.99") && table.contains("get"), "{table}");
    let report = Report::read(&run).unwrap();
    assert_eq!(
        (
            report.command.as_str(),
            report.outcome.as_str(),
            report.runs.len()
        ),
        ("run", "complete", 1)
    );
    let get = &report.runs[0].kinds["get"];
    assert_eq!(get.count, report.runs[0].counters.answered);
    assert!(get.p50_us <= get.p99_us && get.p99_us <= get.p99_99_us && get.p99_99_us <= get.max_us);
    assert!(std::fs::read_to_string(svg.join("timeline.svg"))
        .unwrap()
        .contains("Throughput over time"));

    let args = [
        "sweep",
        "micro",
        "--rates",
        "200,400",
        "--step",
        "200ms",
        "-q",
        "--json",
        text(&sweep),
    ];
    assert_eq!(ok(&[&args[..], &target].concat()), "", "quiet");
    assert_eq!(Report::read(&sweep).unwrap().runs.len(), 2);

    // A bound that no machine fails, so that the search ends at its maximum.
    let args = [
        "peak", "micro", "--start", "200", "--max", "400", "--bound", "10s", "--step", "200ms",
    ];
    let table = ok(&[&args[..], &["--json", text(&peak)], &target].concat());
    assert!(table.contains("peak:"), "{table}");
    assert!(
        Report::read(&peak)
            .unwrap()
            .peak
            .unwrap()
            .offered_per_second
            > 300.0
    );

    let (a, b) = (format!("a={}", text(&sweep)), format!("b={}", text(&peak)));
    ok(&["plot", &a, &b, "--output", text(dir.path())]);
    for (name, words) in [("latency.svg", "offered"), ("throughput.svg", "micro")] {
        let svg = std::fs::read_to_string(file(name)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains(words), "{name}");
    }
}

#[test]
fn generate_and_replay() {
    let server = server(Contents::Kept(Mutex::default()));
    let address = server.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("replay.json");
    for name in ["t.csv", "t.csv.gz", "t.csv.zst"] {
        let trace = dir.path().join(name);
        ok(&[
            "gen",
            "app",
            "--keys",
            "500",
            "-n",
            "2k",
            "-r",
            "20k",
            "--seed",
            "7",
            "--output",
            text(&trace),
        ]);
        let target = [
            "--server",
            &address,
            "--timeout",
            "10s",
            "--json",
            text(&json),
            "--fill-on-miss",
            "-q",
        ];
        for speed in ["max", "2"] {
            ok(&[&["replay", text(&trace), "--speed", speed][..], &target].concat());
            let report = Report::read(&json).unwrap();
            let c = &report.runs[0].counters;
            assert_eq!(c.answered, 2000 + c.refills, "{name} {speed}: {c:?}");
            assert!(c.hits > 0, "{c:?}");
        }
        ok(&[
            &["replay", text(&trace), "-n", "100", "--speed", "max"][..],
            &target,
        ]
        .concat());
        let c = &Report::read(&json).unwrap().runs[0].counters;
        assert_eq!(c.sent, 100 + c.refills);
    }
}

#[test]
fn public_traces_are_replayed() {
    let server = server(Contents::Kept(Mutex::default()));
    let address = server.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("replay.json");
    let twitter =
        "100,nz:u:aa,10,0,7,get,0\n100,nz:u:aa,10,300,7,set,3600\n100,nz:u:aa,10,300,7,get,0\n\
                   100,b,5,4,7,incr,0\n101,nz:u:aa,10,0,7,delete,0\n101,nz:u:aa,10,0,7,gets,0\n";
    let kvcache = "op_time,key,key_size,op,op_count,size,cache_hits,ttl\n5,99,20,SET,1,40,0,0\n5,99,20,GET,3,40,3,0\n";
    for (name, text_of, answered, hits) in [
        ("twitter.csv", twitter, 6, 1),
        ("kvcache.csv", kvcache, 4, 3),
    ] {
        let trace = dir.path().join(name);
        std::fs::write(&trace, text_of).unwrap();
        // One at a time over one connection, so that the order is kept.
        let args = [
            "replay",
            text(&trace),
            "--speed",
            "max",
            "--window",
            "1",
            "--connections",
            "1",
            "--get",
            "tcp",
        ];
        ok(&[
            &args[..],
            &[
                "--server",
                &address,
                "--timeout",
                "10s",
                "--json",
                text(&json),
                "-q",
            ],
        ]
        .concat());
        let c = &Report::read(&json).unwrap().runs[0].counters;
        assert_eq!((c.answered, c.hits), (answered, hits), "{name}: {c:?}");
    }
}

#[test]
fn bad_input_has_its_place_and_status() {
    let server = server(Contents::Kept(Mutex::default()));
    let address = server.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let (trace, json) = (dir.path().join("bad.csv"), dir.path().join("report.json"));
    std::fs::write(
        &trace,
        "time,op,key,size,ttl\n0,set,a,10,0\n1,get,a,10,0\n2,shout,a,10,0\n3,get,a,0,0\n",
    )
    .unwrap();
    let args = [
        "replay",
        text(&trace),
        "--server",
        &address,
        "--speed",
        "max",
        "--json",
        text(&json),
        "-q",
    ];
    let error = fails(&args, 1);
    assert!(
        error.contains("bad.csv: line 4") && error.contains("shout"),
        "{error}"
    );
    let report = Report::read(&json).unwrap();
    assert_eq!(
        report.runs[0].counters.answered, 2,
        "the report of the lines before is kept"
    );
    assert!(report.outcome.contains("line 4"));
    let skipping = [&args[..], &["--skip-bad", "1"]].concat();
    assert!(hippos_load(&skipping).status.success());

    let workload = dir.path().join("mine.toml");
    std::fs::write(&workload, "name = \"mine\"\n[keys]\nnumber = 3\n").unwrap();
    let error = fails(&["run", text(&workload), "--server", &address], 1);
    assert!(
        error.contains("mine.toml") && error.contains("line 3"),
        "{error}"
    );
    assert!(fails(&["run", "nothing", "--server", &address], 1).contains("nothing"));
    assert!(fails(&["replay", "/nowhere.csv", "--server", &address], 1).contains("/nowhere.csv"));
    fails(&["run", "micro", "--rate", "fast"], 2);
    fails(
        &["run", "micro", "--arrival", "burst", "--burst-factor", "50"],
        1,
    );
}

#[test]
fn servers_that_are_wrong_or_gone_have_their_status() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    let faulty = Echo::start(
        ([127, 0, 0, 1], 0).into(),
        1,
        false,
        Contents::Model(Box::new(
            Model::new(&Workload::named("micro").unwrap()).unwrap(),
        )),
        Faults {
            corrupt: 50,
            ..Faults::default()
        },
    )
    .unwrap();
    let address = faulty.address().to_string();
    let args = [
        "run",
        "micro",
        "--closed",
        "-n",
        "500",
        "--no-fill",
        "--json",
        text(&json),
        "--server",
        &address,
    ];
    assert!(fails(&args, 3).contains("wrong reply"));
    let report = Report::read(&json).unwrap();
    assert!(report.outcome.contains("wrong") && report.runs[0].counters.answered > 0);
    drop(faulty);
    assert!(fails(&args, 4).contains(&address));
    assert!(Report::read(&json).unwrap().outcome.contains(&address));
}

#[test]
fn workloads_are_shown_with_their_sources() {
    let list = ok(&["workloads"]);
    assert!(
        ["usr", "app", "etc", "var", "sys", "mget-16"]
            .iter()
            .all(|name| list.contains(name)),
        "{list}"
    );
    let etc = ok(&["workloads", "etc"]);
    assert!(
        etc.contains("Atikoglu") && etc.contains("model:") && etc.contains("73.6 % get"),
        "{etc}"
    );
}
