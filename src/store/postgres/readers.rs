//! The connections that reads share.

use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolConfig, PoolError, QueueMode, RecycleResult};

use tokio::sync::Semaphore;

use super::connect::{Address, Role, Session, close, closed, connect};
use crate::store::{ErrorClass, StoreError};

/// How many reads run at once; more wait for a connection.
const READERS_MAX: usize = 8;

/// How many of them are for clients: two are left for figures, for probes, and for the reader of the live stream.
const CLIENT_READERS_MAX: usize = 6;

/// A pool of connections for reads. A connection is either idle in the pool or on loan to one read.
pub(super) struct Readers {
    pool: Pool<Connector>,
    clients: Semaphore,
}

impl Readers {
    pub(super) fn new(address: Address) -> Self {
        let config = PoolConfig {
            queue_mode: QueueMode::Lifo,
            ..PoolConfig::new(READERS_MAX)
        };
        let pool = Pool::builder(Connector(address)).config(config).build();
        Self {
            pool: pool.expect("a pool without time limits of its own needs no runtime"),
            clients: Semaphore::new(CLIENT_READERS_MAX),
        }
    }

    /// Runs one read that has no argument, as [`Readers::run_with`].
    pub(super) async fn run<T, F>(&self, limit: Duration, read: F) -> Result<T, StoreError>
    where
        F: AsyncFn(&mut Session) -> Result<T, StoreError> + Copy,
    {
        self.run_with(limit, read, async |pg: &mut Session, read: F| read(pg).await)
            .await
    }

    /// Runs one read for a client, as [`Readers::run_with`], when it has a turn.
    pub(super) async fn run_for_client<A: Copy, T>(
        &self,
        limit: Duration,
        argument: A,
        read: impl AsyncFn(&mut Session, A) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let turn = tokio::time::timeout(limit, self.clients.acquire()).await;
        let Ok(_turn) = turn else {
            let message = format!("no turn for the read became free within {limit:?}");
            return Err(StoreError::new(ErrorClass::Contention, message));
        };
        let left = limit.saturating_sub(begun.elapsed());
        self.run_with(left, argument, read).await
    }

    /// Runs one read within `limit`, the wait for a connection included. An idle connection may have died meanwhile: then all
    /// idle connections are dropped, and the read is tried once more on a new one.
    ///
    /// The argument of the read is not captured by a closure: for a future that borrows a capture the compiler cannot see that
    /// it is `Send`.
    pub(super) async fn run_with<A: Copy, T>(
        &self,
        limit: Duration,
        argument: A,
        read: impl AsyncFn(&mut Session, A) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let attempt = async {
            let mut loan = Loan::of(&self.pool).await?;
            let mut result = read(loan.connection(), argument).await;
            if loan.was_idle() && matches!(&result, Err(error) if error.class.breaks_connection()) {
                self.drop_idle();
                *loan.connection() = self.pool.manager().create().await?;
                result = read(loan.connection(), argument).await;
            }
            if result.is_ok() {
                loan.give_back();
            }
            result
        };
        tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| {
            // A slow query, or a network that swallows everything: then the idle connections are dead as well.
            self.drop_idle();
            let message = format!("the read took longer than {limit:?}");
            Err(StoreError::new(ErrorClass::Contention, message))
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    /// Closes the idle connections. A connection that is on loan is closed as soon as its read ends.
    pub(super) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for pg in idle {
            close(pg).await;
        }
    }

    fn drop_idle(&self) {
        drop(self.pool.retain(|_, _| false));
    }
}

/// Opens the connections of the pool.
struct Connector(Address);

impl Manager for Connector {
    type Type = Session;
    type Error = StoreError;

    async fn create(&self) -> Result<Session, StoreError> {
        connect(&self.0, Role::Reader).await
    }

    /// No ping: it would cost each read a round trip, and [`Readers::run`] copes with a dead connection.
    async fn recycle(&self, _: &mut Session, _: &Metrics) -> RecycleResult<StoreError> {
        Ok(())
    }
}

/// A connection on loan. It is closed when it is dropped, unless it was given back: a read that fails, is cancelled or takes
/// too long leaves its connection in an unknown state. Its place in the pool becomes free in either case.
struct Loan(Option<Object<Connector>>);

impl Loan {
    async fn of(pool: &Pool<Connector>) -> Result<Self, StoreError> {
        match pool.get().await {
            Ok(object) => Ok(Self(Some(object))),
            Err(PoolError::Backend(error)) => Err(error),
            // The pool has no time limits and no hooks, so nothing else can be wrong.
            Err(_) => Err(closed()),
        }
    }

    /// Whether the connection was used before.
    fn was_idle(&self) -> bool {
        Object::metrics(self.object()).recycle_count > 0
    }

    fn connection(&mut self) -> &mut Session {
        self.0.as_mut().expect(HAS_OBJECT)
    }

    fn object(&self) -> &Object<Connector> {
        self.0.as_ref().expect(HAS_OBJECT)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

const HAS_OBJECT: &str = "a loan has its connection until it is given back";
