//! What a memcached answers, as one table of cases.
