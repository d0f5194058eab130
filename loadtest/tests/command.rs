// SPDX-License-Identifier: GPL-2.0-only
//! The command itself: exit statuses, reports that are written in each case, files that are written.

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
fn run_peak_sweep_and_plot_write_their_results() {
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
        .contains("Throughput over time: micro"));
    for name in [
        "timeline-latency",
        "timeline-lag",
        "timeline-hits",
        "percentiles",
    ] {
        assert!(svg.join(format!("{name}.svg")).exists(), "{name}");
    }

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

    // A bound that every machine meets, so that the search ends at its maximum.
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
    let again = ["plot", &a, &b, "--output", text(dir.path())];
    assert!(fails(&again, 1).contains("--force"));
    ok(&[&again[..], &["--force"]].concat());
    let page = file("page.html");
    ok(&["plot", &a, &b, "--html", text(&page)]);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.matches("<svg").count() == 2 && page.contains("answered/s"));
    for (name, words) in [("latency.svg", "offered"), ("throughput.svg", "micro")] {
        let svg = std::fs::read_to_string(file(name)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains(words), "{name}");
    }
}

#[test]
fn a_generated_trace_can_be_replayed() {
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
        let args = ["replay", text(&trace), "--speed", "max"];
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
    fails(&["run", "micro", "--closed", "--window", "0"], 2);
    fails(&["run", "micro", "-d", "0s"], 2);
    fails(&["run", "micro", "--closed", "-r", "5"], 2);
    fails(&["replay", "x", "--speed", "max", "--window", "0"], 2);
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

#[test]
fn reports_go_where_they_are_sent() {
    use std::os::unix::fs::{symlink, PermissionsExt};
    let server = server(micro());
    let address = server.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let args = |json: &'static str| {
        [
            "run",
            "micro",
            "--closed",
            "-n",
            "20",
            "--no-fill",
            "-q",
            "--json",
            json,
        ]
    };
    // Standard output, by both of its names, with the table elsewhere.
    for name in ["-", "/dev/stdout"] {
        let printed = ok(&[&args(name)[..], &["--server", &address]].concat());
        let report: Report = serde_json::from_str(&printed).unwrap();
        assert_eq!(report.runs[0].counters.answered, 20, "{name}");
    }
    assert!(!Path::new("-").exists());
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    std::fs::write(&file, "old").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&file, &link).unwrap();
    let run = ["run", "micro", "--closed", "-n", "20", "--no-fill", "-q"];
    ok(&[&run[..], &["--server", &address, "--json", text(&link)]].concat());
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // An operation without requests has no latency.
    let report = std::fs::read_to_string(&file).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["runs"][0]["latency"]["p99_us"].is_number());
    let empty = hippos_load(&[
        "run",
        "micro",
        "-r",
        "0.001",
        "--no-fill",
        "-d",
        "100ms",
        "--warmup",
        "0s",
        "-q",
        "--json",
        "-",
        "--server",
        &address,
    ]);
    let empty: serde_json::Value = serde_json::from_slice(&empty.stdout).unwrap();
    assert!(empty["runs"][0]["latency"]["p99_us"].is_null());
    // Percentiles in the format of HdrHistogram's tools.
    let hgrm = ok(&[&run[..], &["--server", &address, "--hgrm", "-"]].concat());
    assert!(
        hgrm.contains("1/(1-Percentile)") && hgrm.contains("#[Mean"),
        "{hgrm}"
    );
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let server = server(micro());
    let address = server.address().to_string();
    for args in [
        vec!["workloads"],
        vec![
            "run",
            "micro",
            "--closed",
            "-n",
            "20",
            "--no-fill",
            "--server",
            &address,
        ],
        vec!["completions", "bash"],
        vec!["man"],
    ] {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_hippos-load"))
            .args(&args)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && !error.contains("panic"),
            "{args:?}: {error}"
        );
    }
}

#[test]
fn a_closed_standard_error_does_not_end_the_run() {
    // Standard error is a pipe whose reader has closed it.
    let run = |args: &[&str]| {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        Command::new(env!("CARGO_BIN_EXE_hippos-load"))
            .args(args)
            .stdout(std::process::Stdio::null())
            .stderr(writer)
            .status()
            .unwrap()
            .code()
    };
    assert_eq!(run(&["stat", "/nowhere"]), Some(1));
    let server = server(micro());
    let address = server.address().to_string();
    let args = ["run", "micro", "--keys", "100", "--closed", "-n", "9"];
    let more = ["--json", "-", "--server", &address];
    assert_eq!(run(&[&args[..], &more].concat()), Some(0));
}

#[test]
fn an_unwritable_result_file_is_reported_before_the_run() {
    let args = ["run", "micro", "--server", "127.0.0.1:1"];
    for option in ["--json", "--html", "--hgrm"] {
        let error = fails(&[&args[..], &[option, "/nowhere/file"]].concat(), 1);
        assert!(error.contains("/nowhere/file"), "{error}");
    }
}

#[test]
fn a_trace_without_requests_is_an_error() {
    let server = server(Contents::Kept(Mutex::default()));
    let address = server.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace.csv");
    std::fs::write(&trace, "time,op,key,size,ttl\n").unwrap();
    for args in [
        &["stat", text(&trace)][..],
        &["replay", text(&trace), "--server", &address],
    ] {
        let error = fails(args, 1);
        assert!(error.contains("holds no request"), "{error}");
    }
}

#[test]
fn generators_are_merged() {
    let server = server(Contents::Kept(Mutex::default()));
    let address = server.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for part in ["1/2", "2/2"] {
        let file = dir.path().join(part.replace('/', "-"));
        ok(&[
            "run",
            "app",
            "--keys",
            "400",
            "--closed",
            "-n",
            "300",
            "-q",
            "--part",
            part,
            "--server",
            &address,
            "--json",
            text(&file),
        ]);
        files.push(file);
    }
    let table = ok(&["merge", text(&files[0]), text(&files[1])]);
    assert!(table.contains("600"), "{table}");
    let merged = ok(&[
        "merge",
        text(&files[0]),
        text(&files[1]),
        "-q",
        "--json",
        "-",
    ]);
    let merged: Report = serde_json::from_str(&merged).unwrap();
    assert_eq!(merged.runs[0].counters.answered, 600);
    let error = fails(&["merge", text(&files[0]), text(&files[0])], 1);
    assert!(error.contains("part 1/2 is there twice"), "{error}");
    fails(&["run", "app", "--part", "3/2", "--server", &address], 1);
}

/// A trace in one of the public formats, and the hits of an infinite cache.
fn formats() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let oracle: Vec<u8> = [(1u32, 7u64, 30u32), (1, 8, 40), (2, 7, 30)]
        .iter()
        .flat_map(|(time, id, size)| {
            let mut record = time.to_le_bytes().to_vec();
            record.extend(id.to_le_bytes());
            record.extend(size.to_le_bytes());
            record.extend((-1i64).to_le_bytes());
            record
        })
        .collect();
    vec![
        (
            "hippos",
            b"time,op,key,size,ttl\n1,get,a,10,0\n2,get,b,20,0\n3,get,a,10,0\n".to_vec(),
            &[],
        ),
        (
            "twitter",
            b"1,a,1,10,7,get,0\n1,b,1,20,7,get,0\n2,a,1,10,7,get,0\n".to_vec(),
            &[],
        ),
        (
            "cachelib",
            b"key,op,size,op_count,key_size\na,GET,10,1,1\nb,GET,20,1,1\na,GET,10,1,1\n".to_vec(),
            &[],
        ),
        (
            "cachelib",
            b"op_time,key,key_size,op,op_count,size,cache_hits,ttl\n1,a,1,GET,1,10,0,0\n\
              1,b,1,GET,1,20,0,0\n2,a,1,GET,1,10,0,0\n"
                .to_vec(),
            &[],
        ),
        ("libcachesim-csv", b"1,7,10\n2,8,20\n3,7,10\n".to_vec(), &[]),
        ("libcachesim-txt", b"7\n8\n7\n".to_vec(), &[]),
        ("oracle-general", oracle, &[]),
        (
            "wikimedia",
            b"relative_unix\thashed_path_query\timage_type\tresponse_size\ttime_firstbyte\n\
              1\t7\tjpeg\t10\t0.1\n1\t-8\tjpeg\t20\t0.1\n2\t7\tjpeg\t10\t0.1\n"
                .to_vec(),
            &[],
        ),
        (
            "watch",
            b"OK\nts=1.5 gid=1 type=item_get key=a status=not_found clsid=0 cfd=2 size=0\n\
              ts=1.6 gid=2 type=item_get key=a status=not_found clsid=0 cfd=2 size=0\n\
              ts=1.7 gid=3 type=item_store key=a status=stored cmd=set ttl=0 clsid=1 cfd=2 size=10\n\
              ts=1.8 gid=4 type=item_get key=b status=not_found clsid=0 cfd=2 size=0\n\
              ts=1.9 gid=5 type=item_get key=a status=found clsid=1 cfd=2 size=10\n"
                .to_vec(),
            &[],
        ),
        (
            "columns",
            b"a|GET|1.5|10\nb|GET|1.6|20\na|GET|1.7|10\n".to_vec(),
            &["--columns", "key=1,op=2,time=3,size=4", "--delimiter", "|", "--time-unit", "ms"],
        ),
    ]
}

#[test]
fn every_format_is_replayed_with_the_hits_of_an_infinite_cache() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, more) in formats() {
        let server = server(Contents::Kept(Mutex::default()));
        let address = server.address().to_string();
        let trace = dir.path().join(name);
        std::fs::write(&trace, bytes).unwrap();
        let stat = ok(&[&["stat", text(&trace), "--json", "-"][..], more].concat());
        let stat: serde_json::Value = serde_json::from_str(&stat).unwrap();
        assert_eq!(stat["format"], name);
        let truth = stat["hits_filling"].as_f64().unwrap();
        let replay = [
            "replay",
            text(&trace),
            "--speed",
            "max",
            "--fill-on-miss",
            "-q",
            "--json",
            "-",
            "--server",
            &address,
            "--timeout",
            "10s",
        ];
        let report: Report = serde_json::from_str(&ok(&[&replay[..], more].concat())).unwrap();
        let run = &report.runs[0];
        assert_eq!(run.hit_ratio, Some(truth), "{name}: {:?}", run.counters);
        assert_eq!(run.counters.hits, 1, "{name}");
        assert_eq!(report.trace.unwrap().format, name);
    }
}

#[test]
fn a_dump_can_be_loaded_into_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let dump = "key=a exp=-1 la=5 cas=1 fetch=no cls=1 size=69 flags=0\n\
                key=b exp=1795871193 la=1795871188 cas=2 fetch=no cls=1 size=70 flags=0\nEND\n";
    let memtier = "dumpflags, time, exptime, nbytes, nsuffix, it_flags, clsid, nkey, key, data\n\
                   0, 1, 0, 9, 5, 0, 1, 1, \"a\", \"x,y\nz \"\"q\"\"\"\n0, 1, 0, 5, 5, 0, 1, 1, \"b\", \"hello\"\n";
    for (name, words) in [("metadump", dump), ("memtier", memtier)] {
        let server = server(Contents::Kept(Mutex::default()));
        let address = server.address().to_string();
        let trace = dir.path().join(name);
        std::fs::write(&trace, words).unwrap();
        let report = ok(&[
            "replay",
            text(&trace),
            "--speed",
            "max",
            "-q",
            "--json",
            "-",
            "--server",
            &address,
        ]);
        let report: Report = serde_json::from_str(&report).unwrap();
        assert_eq!(report.runs[0].counters.stored, 2, "{name}");
        assert_eq!(report.trace.unwrap().format, name);
    }
}

#[test]
fn a_trace_is_replayed_at_a_rate_and_again_and_again() {
    let server = server(Contents::Kept(Mutex::default()));
    let address = server.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace.csv");
    std::fs::write(&trace, "time,op,key,size,ttl\n0,set,a,10,0\n5,get,a,10,0\n").unwrap();
    let report = ok(&[
        "replay",
        text(&trace),
        "--rate",
        "2k",
        "--arrival",
        "constant",
        "--loop",
        "--warmup",
        "100ms",
        "--duration",
        "200ms",
        "-q",
        "--json",
        "-",
        "--server",
        &address,
    ]);
    let report: Report = serde_json::from_str(&report).unwrap();
    let c = &report.runs[0].counters;
    assert!(c.sent >= 398 && c.sent <= 402, "{c:?}");
    assert!(report.trace.unwrap().rounds >= 300);
    assert!(report.runs[0].timeline[0].warmup);
    // Standard input, and several files.
    let mut child = Command::new(env!("CARGO_BIN_EXE_hippos-load"))
        .args(["stat", "-", text(&trace), "--json", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"time,op,key,size,ttl\n0,get,z,1,0\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let stat: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (stat["requests"].as_u64(), stat["keys"].as_u64()),
        (Some(3), Some(2))
    );
}

#[test]
fn a_server_that_stops_answering_is_reported() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let error = fails(
        &["run", "micro", "--closed", "-n", "5", "--server", &address],
        4,
    );
    assert!(error.contains("does not answer within"), "{error}");
    drop(listener);
}

#[test]
fn unix_sockets_and_authentication_are_supported() {
    use std::io::{BufRead, BufReader, Write};
    let dir = tempfile::tempdir().unwrap();
    let (path, password) = (dir.path().join("socket"), dir.path().join("password"));
    std::fs::write(&password, "me:secret\n").unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut out = stream;
                let first = lines.next().unwrap().unwrap();
                let token = lines.next().unwrap().unwrap();
                assert!(
                    first.starts_with("set ") && first.ends_with(" 9"),
                    "{first}"
                );
                let right = token == "me secret";
                out.write_all(if right {
                    b"STORED\r\n"
                } else {
                    b"CLIENT_ERROR\r\n"
                })
                .unwrap();
                for line in lines.map_while(Result::ok) {
                    let reply: &[u8] = match line.as_str() {
                        "version" => b"VERSION 1\r\n",
                        _ => b"END\r\n",
                    };
                    out.write_all(reply).unwrap();
                }
            });
        }
    });
    let server = format!("unix:{}", text(&path));
    let report = ok(&[
        "run",
        "micro",
        "--closed",
        "-n",
        "50",
        "--no-fill",
        "--get",
        "tcp",
        "-q",
        "--json",
        "-",
        "--server",
        &server,
        "--password-file",
        text(&password),
    ]);
    let report: Report = serde_json::from_str(&report).unwrap();
    assert_eq!(report.runs[0].counters.misses, 50);
    assert_eq!(report.settings.servers[0].to_string(), server);
    std::fs::write(&password, "me:wrong0\n").unwrap();
    let error = fails(
        &[
            "run",
            "micro",
            "--get",
            "tcp",
            "--server",
            &server,
            "--password-file",
            text(&password),
        ],
        4,
    );
    assert!(error.contains("password"), "{error}");
}
