//! The numbering of batches begins anew at each start.

use rusqlite::{Connection, TransactionBehavior};

use super::clock::now;
use super::error::failed_to;
use crate::store::StoreError;

const RAISE_NUMBERS: &str = include_str!("sql/raise_numbers.sql");

const INSERT_GAP: &str = "insert into gaps (after_batch, before_batch) values (?1, ?2)";

/// Begins the numbering of batches anew, above every number that may ever have been given out: the file may be an older copy of
/// itself, whose newest batches are lost.
pub(super) fn raise_numbers(connection: &mut Connection) -> Result<(), StoreError> {
    let mut raise = || {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let newest: i64 = transaction.query_row("select last_batch from log", [], |row| row.get(0))?;
        let base: i64 = transaction.query_row(RAISE_NUMBERS, [now().micros()], |row| row.get(0))?;
        transaction.execute(INSERT_GAP, [newest, base])?;
        transaction.commit()
    };
    raise().map_err(failed_to("begin the numbering of batches anew"))
}
