//! Random streams of commands, answered alike by two servers.
