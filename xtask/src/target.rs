// SPDX-License-Identifier: GPL-2.0-only
//! Which kernel: series, flavour and architecture; the only place that names a series.
//!
//! A command's arguments are a [`Selection`]; its meaning depends on the mirror's content when the build root was set
//! up, and is resolved to a [`Target`].

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{bail, ensure, Context, Result};

/// The kernel series that Hippos is built and tested for. Older ones lack interfaces that it needs, newer ones are
/// built only when they are named, or when the mirror has none of these.
pub(crate) const TESTED: RangeInclusive<Series> = {
    let [oldest, newest] = hippos_abi::TESTED_SERIES;
    Series(oldest.0, oldest.1)..=Series(newest.0, newest.1)
};
/// So many series of the mirror's are worked with.
const CURRENT: usize = 2;

/// A kernel series, for example 7.3: versions with the same interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series(u32, u32);

impl Series {
    /// The series of a release or version, for example of `7.2.12+deb13-cloud-amd64`.
    pub(crate) fn of(release: &str) -> Option<Self> {
        let mut numbers = release.split(['.', '+', '-', '~']);
        Some(Series(
            numbers.next()?.parse().ok()?,
            numbers.next()?.parse().ok()?,
        ))
    }

    /// This series and those that follow, up to `last` of the same major number.
    pub(crate) fn through(self, last: Series) -> impl Iterator<Item = Series> {
        (self.1..=last.1).map(move |minor| Series(self.0, minor))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let series = Series::of(text).filter(|series| series.to_string() == text);
        series.with_context(|| format!("{text} is no kernel series"))
    }
}

/// The purpose that Debian configures a kernel for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Flavour {
    /// For virtual machines
    #[default]
    Cloud,
    /// For any machine
    Generic,
    /// For any machine, with pages of 16 KiB (arm64)
    #[value(name = "16k")]
    Pages16K,
}

/// A processor architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// 64-bit x86, which build roots are of
    #[default]
    #[value(name = "amd64")]
    X86_64,
    /// 64-bit Arm, cross-built and emulated
    Arm64,
}

impl Arch {
    const ALL: [Arch; 2] = [Arch::X86_64, Arch::Arm64];

    /// Debian's name for it.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    /// The name of its tools and of its libraries' folder.
    pub(crate) fn triplet(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-linux-gnu",
            Arch::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// Rust's name for its programs.
    pub(crate) fn rust(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-unknown-linux-gnu",
            Arch::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Whether build roots run its programs.
    pub(crate) fn is_native(self) -> bool {
        self == Arch::X86_64
    }

    /// The environment variables for the kernel's make.
    pub(crate) fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Arch::X86_64 => &[],
            Arch::Arm64 => &[("ARCH", "arm64"), ("CROSS_COMPILE", "aarch64-linux-gnu-")],
        }
    }

    /// How much longer than natively emulated guests may take.
    pub(crate) fn timeout_factor(self) -> u32 {
        match self {
            Arch::X86_64 => 1,
            Arch::Arm64 => 3,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.debian())
    }
}

/// A kernel that the module is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) series: Series,
    pub(crate) flavour: Flavour,
    pub(crate) arch: Arch,
}

impl Target {
    /// The suffix of its packages' names.
    pub(crate) fn suffix(self) -> String {
        match self.flavour {
            Flavour::Cloud => format!("cloud-{}", self.arch.debian()),
            Flavour::Generic => self.arch.debian().to_owned(),
            Flavour::Pages16K => format!("{}-16k", self.arch.debian()),
        }
    }

    /// The target of a release's name, for example `7.2.12+deb13-cloud-amd64`.
    pub(crate) fn of(release: &str) -> Option<Self> {
        let (_, suffix) = release.split_once('-')?;
        let series = Series::of(release)?;
        let flavours = [Flavour::Cloud, Flavour::Generic, Flavour::Pages16K];
        let of = |arch| {
            flavours.map(|flavour| Target {
                series,
                flavour,
                arch,
            })
        };
        Arch::ALL
            .into_iter()
            .flat_map(of)
            .find(|target| target.suffix() == suffix)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.series, self.suffix())
    }
}

/// A series as a command names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Which {
    #[default]
    Newest,
    Previous,
    Named(Series),
}

impl FromStr for Which {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "newest" => Which::Newest,
            "previous" => Which::Previous,
            series => Which::Named(series.parse()?),
        })
    }
}

/// Which kernel a command is to use.
#[derive(clap::Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Kernel")]
pub(crate) struct Selection {
    /// Kernel series: newest or previous of those that the mirror holds, or a number as 7.3
    /// [default: newest]
    #[arg(long, global = true, value_name = "SERIES")]
    series: Option<Which>,
    /// Debian's flavour of the kernel [default: cloud]
    #[arg(long, global = true, value_enum)]
    flavour: Option<Flavour>,
    /// Processor architecture [default: amd64]
    #[arg(long, global = true, value_enum)]
    arch: Option<Arch>,
}

impl Selection {
    /// The target among `series`, newest first, or why there is none.
    pub(crate) fn target(&self, series: &[Series]) -> Result<Target> {
        let current = current(series);
        let newest = current.first().with_context(|| {
            format!(
                "the mirror holds no kernel series from {} on",
                TESTED.start()
            )
        })?;
        let series = match self.which() {
            Which::Newest => *newest,
            Which::Previous => *current
                .get(1)
                .with_context(|| format!("the mirror holds no series besides {newest}"))?,
            Which::Named(series) => {
                ensure!(
                    series >= *TESTED.start(),
                    "kernel {series} is too old: Hippos asks for {} or newer",
                    TESTED.start()
                );
                series
            }
        };
        let (flavour, arch) = (self.flavour.unwrap_or_default(), self.arch());
        ensure!(
            flavour != Flavour::Pages16K || arch == Arch::Arm64,
            "{arch} has no pages of 16 KiB: --arch arm64 has"
        );
        Ok(Target {
            series,
            flavour,
            arch,
        })
    }

    /// The architecture.
    pub(crate) fn arch(&self) -> Arch {
        self.arch.unwrap_or_default()
    }

    /// The requested series.
    pub(crate) fn which(&self) -> Which {
        self.series.unwrap_or_default()
    }

    /// The arguments by which another xtask makes the same selection.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(which) = self.series {
            words.push("--series".to_owned());
            words.push(match which {
                Which::Newest => "newest".to_owned(),
                Which::Previous => "previous".to_owned(),
                Which::Named(series) => series.to_string(),
            });
        }
        if let Some(flavour) = self.flavour {
            words.push("--flavour".to_owned());
            words.push(match flavour {
                Flavour::Cloud => "cloud".to_owned(),
                Flavour::Generic => "generic".to_owned(),
                Flavour::Pages16K => "16k".to_owned(),
            });
        }
        if let Some(arch) = self.arch {
            words.push("--arch".to_owned());
            words.push(arch.to_string());
        }
        words
    }
}

/// The series to work with among those that there are: the newest tested ones, or the newest at
/// all when none of them is left.
pub(crate) fn current(series: &[Series]) -> Vec<Series> {
    let mut usable: Vec<Series> = series.to_vec();
    usable.sort_unstable_by(|a, b| b.cmp(a));
    usable.dedup();
    usable.retain(|series| series >= TESTED.start());
    let tested = |series: &Series| TESTED.contains(series);
    if usable.iter().any(tested) {
        usable.retain(tested);
    }
    usable.truncate(CURRENT);
    usable
}

/// A kernel that the mirror offers with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The output of its `uname -r`.
    pub(crate) release: String,
    /// The packages' version.
    pub(crate) version: String,
}

/// The newest offer for a target in the output of `apt-cache show` for `linux-source-*` and
/// `linux-image-*`. Images stay on the mirror after their source was removed; they can't be used.
pub(crate) fn offer(show: &str, target: Target) -> Option<Offer> {
    let source = format!("linux-source-{}", target.series);
    stanzas(show)
        .filter(|(package, _)| *package == source)
        .find_map(|(_, version)| {
            stanzas(show)
                .filter(|(_, of)| *of == version)
                .filter_map(|(package, _)| package.strip_prefix("linux-image-"))
                .find(|release| Target::of(release) == Some(target))
                .map(|release| Offer {
                    release: release.to_owned(),
                    version: version.to_owned(),
                })
        })
}

/// The series that the same text offers for an architecture, newest first.
pub(crate) fn offered(show: &str, arch: Arch) -> Vec<Series> {
    let mut series: Vec<Series> = stanzas(show)
        .filter_map(|(package, _)| package.strip_prefix("linux-source-")?.parse().ok())
        .filter(|series| {
            let cloud = Target {
                series: *series,
                flavour: Flavour::Cloud,
                arch,
            };
            offer(show, cloud).is_some()
        })
        .collect();
    series.sort_unstable_by(|a, b| b.cmp(a));
    series.dedup();
    series
}

/// Name and version of each package.
fn stanzas(show: &str) -> impl Iterator<Item = (&str, &str)> {
    show.split("\n\n").filter_map(|stanza| {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        Some((field("Package")?, field("Version")?))
    })
}

/// Refuses a release that is no kernel of the target.
pub(crate) fn check(release: &str, target: Target) -> Result<()> {
    if Target::of(release) != Some(target) {
        bail!("kernel {release} is not a {target}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mirror's list: names and versions.
    fn list(packages: &[(&str, &str)]) -> String {
        let stanza = |(name, version): &(&str, &str)| {
            format!("Package: {name}\nSource: linux\nVersion: {version}\nDepends: kmod\n")
        };
        packages.iter().map(stanza).collect::<Vec<_>>().join("\n")
    }

    const TWO: &[(&str, &str)] = &[
        ("linux-source-6.12", "6.12.118-1"),
        ("linux-image-6.12.118+deb13-cloud-amd64", "6.12.118-1"),
        ("linux-image-7.1.13+deb13-cloud-amd64", "7.1.13-1~bpo13+1"),
        ("linux-image-7.2.11+deb13-cloud-amd64", "7.2.11-1~bpo13+1"),
        ("linux-source-7.2", "7.2.12-1~bpo13+1"),
        ("linux-image-7.2.12+deb13-rt-amd64", "7.2.12-1~bpo13+1"),
        ("linux-image-7.2.12+deb13-amd64", "7.2.12-1~bpo13+1"),
        ("linux-image-7.2.12+deb13-cloud-amd64", "7.2.12-1~bpo13+1"),
        ("linux-source-7.3", "7.3.4-1~bpo13+1"),
        ("linux-image-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"),
        ("linux-image-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1"),
    ];

    fn select(series: &str, mirror: &str) -> Result<Target> {
        let selection = Selection {
            series: Some(series.parse()?),
            ..Selection::default()
        };
        selection.target(&offered(mirror, Arch::X86_64))
    }

    fn without(series: &str) -> String {
        let name = format!("linux-source-{series}");
        let kept: Vec<_> = TWO.iter().filter(|(n, _)| **n != *name).copied().collect();
        list(&kept)
    }

    #[test]
    fn series_are_ordered_by_number() {
        let read = |text: &str| text.parse::<Series>().unwrap();
        assert!(read("7.10") > read("7.9"));
        assert_eq!(Series::of("7.2.12+deb13-cloud-amd64"), Some(read("7.2")));
        assert_eq!(Series::of("7.4~rc3-amd64"), Some(read("7.4")));
        for bad in ["7", "7.2.1", "seven", "7.2+", ""] {
            assert!(bad.parse::<Series>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_release_determines_its_target() {
        let cloud = Target::of("7.2.12+deb13-cloud-amd64").unwrap();
        assert_eq!(cloud.to_string(), "7.2-cloud-amd64");
        let generic = Target::of("7.2.12+deb13-amd64").unwrap();
        assert_eq!(generic.flavour, Flavour::Generic);
        assert_eq!(generic.to_string(), "7.2-amd64");
        assert_eq!(Target::of("7.2.12+deb13-rt-amd64"), None);
        for name in ["cloud-arm64", "arm64", "arm64-16k"] {
            let target = Target::of(&format!("7.3.4+deb13-{name}")).unwrap();
            assert_eq!(target.arch, Arch::Arm64);
            assert_eq!(target.to_string(), format!("7.3-{name}"));
        }
    }

    #[test]
    fn an_architecture_has_kernels_of_its_own() {
        let mirror = list(&[
            ("linux-source-7.3", "7.3.4-1~bpo13+1"),
            ("linux-image-7.3.4+deb13-cloud-arm64", "7.3.4-1~bpo13+1"),
            ("linux-image-7.3.4+deb13-arm64-16k", "7.3.4-1~bpo13+1"),
        ]);
        assert!(offered(&mirror, Arch::X86_64).is_empty());
        let series = offered(&mirror, Arch::Arm64);
        let select = |arch| Selection {
            flavour: Some(Flavour::Pages16K),
            arch: Some(arch),
            ..Selection::default()
        };
        let target = select(Arch::Arm64).target(&series).unwrap();
        let found = offer(&mirror, target).unwrap();
        assert_eq!(found.release, "7.3.4+deb13-arm64-16k");
        assert!(select(Arch::X86_64).target(&series).is_err());
    }

    #[test]
    fn image_and_source_are_of_one_version() {
        let mirror = list(TWO);
        let target = select("previous", &mirror).unwrap();
        let found = offer(&mirror, target).unwrap();
        assert_eq!(found.release, "7.2.12+deb13-cloud-amd64");
        assert_eq!(found.version, "7.2.12-1~bpo13+1");
        let generic = Target {
            flavour: Flavour::Generic,
            ..target
        };
        assert_eq!(
            offer(&mirror, generic).unwrap().release,
            "7.2.12+deb13-amd64"
        );
        // The source is a version ahead of the images: nothing to build for.
        let ahead = mirror.replace("linux-source-7.2\nSource: linux\nVersion: 7.2.12", {
            "linux-source-7.2\nSource: linux\nVersion: 7.2.13"
        });
        assert_eq!(offer(&ahead, target), None);
    }

    #[test]
    fn the_newest_two_tested_series_are_current() {
        let mirror = list(TWO);
        assert_eq!(
            select("newest", &mirror).unwrap().to_string(),
            "7.3-cloud-amd64"
        );
        assert_eq!(
            select("previous", &mirror).unwrap().to_string(),
            "7.2-cloud-amd64"
        );
        let next = [
            TWO,
            &[
                ("linux-source-7.4", "7.4.1-1~bpo13+1"),
                ("linux-image-7.4.1+deb13-cloud-amd64", "7.4.1-1~bpo13+1"),
            ],
        ]
        .concat();
        assert_eq!(
            select("newest", &list(&next)).unwrap().to_string(),
            "7.3-cloud-amd64"
        );
        assert_eq!(
            select("7.4", &list(&next)).unwrap().to_string(),
            "7.4-cloud-amd64"
        );
    }

    #[test]
    fn a_series_that_leaves_the_mirror_breaks_nothing() {
        // The older one gone: the newest is served, there is no previous one.
        let mirror = without("7.2");
        assert_eq!(
            select("newest", &mirror).unwrap().to_string(),
            "7.3-cloud-amd64"
        );
        let error = select("previous", &mirror).unwrap_err().to_string();
        assert!(error.contains("no series besides 7.3"), "{error}");
        // The newer one gone.
        assert_eq!(
            select("newest", &without("7.3")).unwrap().to_string(),
            "7.2-cloud-amd64"
        );
        // Both gone, and newer ones there.
        let mirror = list(TWO).replace("7.2", "7.4").replace("7.3", "7.5");
        assert_eq!(
            select("newest", &mirror).unwrap().to_string(),
            "7.5-cloud-amd64"
        );
        assert_eq!(
            select("previous", &mirror).unwrap().to_string(),
            "7.4-cloud-amd64"
        );
        // Only series that are too old.
        assert!(select("newest", &list(&TWO[..3])).is_err());
        assert!(select("6.12", &list(TWO)).is_err());
        assert!(select("newest", "").is_err());
    }
}
