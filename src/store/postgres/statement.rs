//! Statements, with the name of the schema that they read and write.

use std::sync::Arc;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::config::SCHEMA_DEFAULT;

/// The name of the schema. The statements are written for the default one; for another, its name takes the place of the
/// default's in each of them, so that a statement depends on no `search_path`.
#[derive(Debug, Clone)]
pub(super) struct Schema(Arc<str>);

impl Schema {
    /// `name` has lower-case letters, digits and underscores alone.
    pub(super) fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// A statement that names this schema.
    pub(super) fn statement(&self, statement: &'static str) -> SqlStr {
        if &*self.0 == SCHEMA_DEFAULT {
            return statement.into_sql_str();
        }
        // Quoted: the name may be a key word. It stands also in strings that PostgreSQL reads as identifiers.
        AssertSqlSafe(statement.replace(SCHEMA_DEFAULT, &format!("\"{}\"", self.0))).into_sql_str()
    }

    /// A query whose statement names this schema.
    pub(super) fn query<'q>(&self, statement: &'static str) -> Query<'q, sqlx::Postgres, PgArguments> {
        sqlx::query(self.statement(statement))
    }
}
