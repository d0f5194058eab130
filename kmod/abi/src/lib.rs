//! The control device's numbers and structures.
#![no_std]
