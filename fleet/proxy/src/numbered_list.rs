// SPDX-License-Identifier: MIT

//! A list whose elements keep their number while they are in it.

/// Elements by number. A number is used again after its element was removed.
#[derive(Debug)]
pub(crate) struct NumberedList<T> {
    list: Vec<Option<T>>,
    /// Numbers without an element.
    free: Vec<u32>,
}

impl<T> Default for NumberedList<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> NumberedList<T> {
    /// Adds an element and returns its number.
    pub(crate) fn add(&mut self, element: T) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self.list[number as usize] = Some(element);
                number
            }
            None => {
                self.list.push(Some(element));
                (self.list.len() - 1) as u32
            }
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.list.get(number as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.list.get_mut(number as usize)?.as_mut()
    }

    /// Takes an element out for a while. Its number stays its own until [`put_back`](Self::put_back).
    pub(crate) fn take(&mut self, number: u32) -> Option<T> {
        self.list.get_mut(number as usize)?.take()
    }

    pub(crate) fn put_back(&mut self, number: u32, element: T) {
        self.list[number as usize] = Some(element);
    }

    /// Removes an element, and its number is free.
    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let element = self.take(number)?;
        self.free.push(number);
        Some(element)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.iter().all(Option::is_none)
    }

    /// All numbers that were ever given.
    pub(crate) fn numbers(&self) -> std::ops::Range<u32> {
        0..self.list.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_after_its_element_was_removed_and_not_while_it_is_taken_out() {
        let mut list = NumberedList::default();
        assert_eq!([list.add('a'), list.add('b')], [0, 1]);
        assert_eq!(list.take(0), Some('a'));
        assert_eq!(list.add('c'), 2);
        assert_eq!((list.take(0), list.remove(0)), (None, None));
        list.put_back(0, 'd');
        assert_eq!(list.get(0), Some(&'d'));
        assert_eq!(list.remove(1), Some('b'));
        assert_eq!((list.add('e'), list.numbers()), (1, 0..3));
        for number in list.numbers() {
            assert!(!list.is_empty());
            assert!(list.remove(number).is_some());
        }
        assert!(list.is_empty());
        assert_eq!(list.get_mut(3), None);
    }
}
