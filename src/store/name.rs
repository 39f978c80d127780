//! The name of a store.

/// What every part of a store has: the name of its kind.
pub trait Named: Send + Sync + 'static {
    /// The name that `/stats`, `/health` and traces show: `postgres` or `sqlite`.
    fn name(&self) -> &'static str;
}
