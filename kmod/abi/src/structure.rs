// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Structures of fixed layout, and their bytes: the one encoder and decoder that the module and its
//! tools share.

/// A structure that passes through the control device: its fields in order, without padding, numbers in the machine's
/// byte order.
pub trait Structure: Copy {
    /// Its bytes, as an array.
    type Bytes: AsRef<[u8]> + AsMut<[u8]>;
    /// An array of the same size, all zero.
    const ZEROED: Self::Bytes;
    /// Its size in bytes, a part of the call's number.
    const SIZE: usize;
    /// Whether a field is an address in the caller's memory, which the kernel reads or writes.
    const HAS_ADDRESS: bool;

    /// Its bytes.
    fn encode(&self) -> Self::Bytes;

    /// Decodes a structure; `None` unless there are [`SIZE`](Self::SIZE) bytes. All values of a field's type are
    /// accepted here: [`Request::accept`](crate::Request::accept) refuses some.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// No structure: the call has no input, or no output.
impl Structure for () {
    type Bytes = [u8; 0];
    const ZEROED: [u8; 0] = [];
    const SIZE: usize = 0;
    const HAS_ADDRESS: bool = false;

    fn encode(&self) -> [u8; 0] {
        []
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

/// An address in the caller's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address(pub u64);

/// Bytes that have no meaning yet: zero when written, ignored when read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved<const N: usize>;

/// A field's type.
pub(crate) trait Field: Copy {
    const SIZE: usize;
    const IS_ADDRESS: bool = false;

    /// Writes it to the front of `to`, and returns the rest.
    fn put(self, to: &mut [u8]) -> &mut [u8];

    /// Reads it from the front of `from`, and returns the rest.
    fn get(from: &[u8]) -> Option<(Self, &[u8])>;
}

fn put<'a, const N: usize>(bytes: &[u8; N], to: &'a mut [u8]) -> &'a mut [u8] {
    match to.split_first_chunk_mut::<N>() {
        Some((front, rest)) => {
            *front = *bytes;
            rest
        }
        None => &mut [],
    }
}

macro_rules! number_fields {
    ($($number:ty),*) => {$(
        impl Field for $number {
            const SIZE: usize = size_of::<Self>();

            fn put(self, to: &mut [u8]) -> &mut [u8] {
                put(&self.to_ne_bytes(), to)
            }

            fn get(from: &[u8]) -> Option<(Self, &[u8])> {
                let (front, rest) = from.split_first_chunk()?;
                Some((Self::from_ne_bytes(*front), rest))
            }
        }
    )*};
}

number_fields!(u16, u32, u64);

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;

    fn put(self, to: &mut [u8]) -> &mut [u8] {
        put(&self, to)
    }

    fn get(from: &[u8]) -> Option<(Self, &[u8])> {
        let (front, rest) = from.split_first_chunk()?;
        Some((*front, rest))
    }
}

impl Field for Address {
    const SIZE: usize = size_of::<u64>();
    const IS_ADDRESS: bool = true;

    fn put(self, to: &mut [u8]) -> &mut [u8] {
        self.0.put(to)
    }

    fn get(from: &[u8]) -> Option<(Self, &[u8])> {
        let (address, rest) = u64::get(from)?;
        Some((Self(address), rest))
    }
}

impl<const N: usize> Field for Reserved<N> {
    const SIZE: usize = N;

    fn put(self, to: &mut [u8]) -> &mut [u8] {
        put(&[0; N], to)
    }

    fn get(from: &[u8]) -> Option<(Self, &[u8])> {
        let (_, rest) = from.split_first_chunk::<N>()?;
        Some((Self, rest))
    }
}

/// Defines structures. The size of each must be the sum of its fields.
macro_rules! structures {
    ($(
        $(#[$attribute:meta])*
        $name:ident: $size:literal bytes {
            $($(#[$field_attribute:meta])* $field:ident: $kind:ty,)*
        }
    )*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $kind,)*
        }

        const _: () = assert!($size == 0 $(+ <$kind as Field>::SIZE)*);

        impl Structure for $name {
            type Bytes = [u8; $size];
            const ZEROED: [u8; $size] = [0; $size];
            const SIZE: usize = $size;
            const HAS_ADDRESS: bool = false $(|| <$kind as Field>::IS_ADDRESS)*;

            fn encode(&self) -> [u8; $size] {
                let mut bytes = Self::ZEROED;
                let rest = &mut bytes[..];
                $(let rest = self.$field.put(rest);)*
                let _ = rest;
                bytes
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                $(let ($field, bytes) = Field::get(bytes)?;)*
                bytes.is_empty().then_some(Self { $($field),* })
            }
        }
    )*};
}

pub(crate) use structures;
