//! RCU hash table, slab arenas, CLOCK eviction.
#![no_std]
