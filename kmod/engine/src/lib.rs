//! Sans-IO sessions that join protocol and store.
#![no_std]
