// SPDX-License-Identifier: GPL-2.0-only
//! The settings that a store is made from, and the reasons for refusing them.

/// Which items go when memory is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// A hand sweeps each class's slots; a slot that was hit since the last sweep stays.
    #[default]
    Clock,
    /// A queue in order of arrival; the hand leaves slots that were hit where they are (Zhang and others, NSDI 2024).
    Sieve,
    /// A small probation queue before the main queue, and ghosts: the hashes of items evicted from the small one
    /// (Yang and others, SOSP 2023).
    ///
    /// SIEVE and S3-FIFO take 8 bytes more for each item and serve at most about 100 GiB.
    S3Fifo,
}

impl Eviction {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Clock, Self::Sieve, Self::S3Fifo];

    /// The policy of that name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.name().as_bytes() == name)
    }

    /// Its name, as the parameter `eviction` and `stats settings` have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Sieve => "sieve",
            Self::S3Fifo => "s3fifo",
        }
    }
}

/// The settings of a store. All but the memory limit are fixed for the store's lifetime.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes for items, index and retired items together. [`crate::Store::resize`] changes it.
    pub memory: usize,
    /// The most that `resize` may ask for; fixed tables are sized for it (less than 100 bytes for
    /// each MiB). 0: four times `memory`, at least 1 GiB.
    pub memory_max: usize,
    /// memcached's `-I`: the largest item in bytes as memcached counts it, header included. From
    /// 1 KiB to 4 MiB.
    pub item_max: usize,
    /// memcached's `-n`: the bytes of key and value that the smallest slots hold. From 1 to 1024.
    pub item_min: usize,
    /// memcached's `-f` in hundredths: the ratio of a class's slot size to that of the class before it. From 102 to
    /// 1000.
    pub factor: u32,
    /// Random numbers of this boot, the secrets of the hash.
    pub seed: [u64; 4],
    /// The eviction policy.
    pub eviction: Eviction,
    /// Counters of the caller's own, per CPU: see [`crate::Store::tally`].
    pub tallies: usize,
    /// Bytes of a memory block, a power of two; 0 for the smallest block that holds the largest item, at least 1 MiB.
    /// Small blocks are for tests.
    pub block: usize,
}

/// The module's defaults, as its table of parameters has them.
impl Default for Config {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            memory_max: 0,
            item_max: 1 << 20,
            item_min: 48,
            factor: 125,
            seed: [0; 4],
            eviction: Eviction::Clock,
            tallies: 0,
            block: 0,
        }
    }
}

/// Why a store could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewError {
    /// `memory` is less than two blocks.
    TooSmall,
    /// A setting is out of its range.
    Invalid,
    /// The platform had no memory for the tables or the first part of the index.
    OutOfMemory,
}
