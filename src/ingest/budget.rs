//! The budget of bytes: reserved from the first byte of a body until its group commit has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pressure::Pressure;

/// A reservation of up to this size may take the last byte. Larger ones leave an eighth of the budget to these: whoever sends much, and
/// slowly, must not keep out those who send little.
const SMALL_BYTES: usize = 64 << 10;

/// A fixed number of bytes that bodies and events share.
#[derive(Debug)]
pub struct Budget {
    taken: AtomicUsize,
    max: usize,
    pub(super) pressure: Pressure,
}

/// The budget is used up: the request is answered 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory for requests is used up")]
pub struct Spent;

impl Budget {
    /// A budget of `max` bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max,
            pressure: Pressure::default(),
        })
    }

    /// An empty reservation, to be grown.
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// The reserved bytes.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The most bytes that may be reserved.
    pub fn max(&self) -> usize {
        self.max
    }
}

/// Bytes reserved from a [`Budget`], released on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Reserves `more` bytes, or none of them.
    ///
    /// # Errors
    /// [`Spent`] when fewer are free.
    pub fn grow(&mut self, more: usize) -> Result<(), Spent> {
        let max = self.budget.max;
        let is_small = self.bytes.saturating_add(more) <= SMALL_BYTES;
        let fits = |taken: usize| {
            // Whoever is alone may take all of it.
            let left_to_small = if is_small || taken == self.bytes { 0 } else { max / 8 };
            taken.checked_add(more).filter(|taken| *taken <= max - left_to_small)
        };
        let taken = &self.budget.taken;
        let has_fitted = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if is_small {
            let pressure = &self.budget.pressure;
            if has_fitted {
                pressure.admit()
            } else {
                pressure.refuse()
            }
        }
        if !has_fitted {
            return Err(Spent);
        }
        self.bytes += more;
        Ok(())
    }

    /// Releases what exceeds `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.budget.taken.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
    }

    /// The reserved bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_room_to_small_reservations() {
        let budget = Budget::new(80 * SMALL_BYTES);
        let mut alone = budget.reserve();
        alone.grow(80 * SMALL_BYTES).unwrap();
        alone.shrink_to(68 * SMALL_BYTES);
        let mut large = budget.reserve();
        large.grow(SMALL_BYTES).unwrap();
        large.grow(SMALL_BYTES).unwrap();
        assert_eq!(large.grow(1), Err(Spent));
        let small: Vec<Reservation> = (0..10)
            .map(|_| {
                let mut small = budget.reserve();
                small.grow(SMALL_BYTES).unwrap();
                small
            })
            .collect();
        assert_eq!((budget.taken(), budget.reserve().grow(1)), (budget.max(), Err(Spent)));
        drop(small);
    }

    #[test]
    fn reserves_all_bytes_and_releases_them() {
        let budget = Budget::new(100);
        let mut first = budget.reserve();
        first.grow(60).unwrap();
        let mut second = budget.reserve();
        assert_eq!(second.grow(41), Err(Spent));
        second.grow(40).unwrap();
        drop(first);
        assert_eq!(budget.taken(), 40);
        second.grow(60).unwrap();
        second.shrink_to(70);
        assert_eq!((second.bytes(), budget.taken()), (70, 70));
        second.shrink_to(80);
        assert_eq!((second.bytes(), budget.taken()), (70, 70));
        drop(second);
        assert_eq!(budget.taken(), 0);
    }
}
