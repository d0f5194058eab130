//! memcached's protocols: requests in, replies out, no allocation.
#![no_std]
