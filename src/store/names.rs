//! The names that the books know, for commands that are given one.

use super::{Doing, Store, StoreError};

const ASKING: &str = "looking for a name";

/// Names that are listed at most.
const MOST: i64 = 2_000;

/// The kind of thing that has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Batch,
    Project,
    Route,
    Provider,
    /// With its tier, or without.
    Model,
    Login,
}

impl Named {
    /// The word for it, in messages and statements.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Project => "project",
            Self::Route => "route",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Login => "login",
        }
    }
}

impl Store {
    /// Whether jobs or calls of it are in the sums; a login: whether the database has it.
    pub async fn is_booked(&self, kind: Named, name: &str) -> Result<bool, StoreError> {
        if kind == Named::Batch {
            // By their index.
            return sqlx::query_scalar!(
                r#"select exists (select from sluice.totals t where t.batch <> '' and t.batch = $1) as "is!""#,
                name
            )
            .fetch_one(&self.db)
            .await
            .doing(ASKING);
        }
        sqlx::query_scalar!(
            r#"select case when $1 = 'login' then exists (select from pg_catalog.pg_roles r where r.rolname = $2)
                      else exists (select from sluice.totals t
                                    where $2 in (case $1 when 'project' then t.project when 'route' then t.route
                                                         when 'provider' then t.provider else t.model end,
                                                 case when $1 = 'model' then split_part(t.model, '@', 1) end))
                      end as "is!""#,
            kind.as_str() as _,
            name as _
        )
        .fetch_one(&self.db)
        .await
        .doing(ASKING)
    }

    /// The names that are in the sums, or logins, as many as are worth looking through.
    pub async fn booked_names(&self, kind: Named) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!(
            r#"select distinct k.name as "name!"
                 from (select case $1 when 'batch' then t.batch when 'project' then t.project
                                      when 'route' then t.route when 'provider' then t.provider
                                      else split_part(t.model, '@', 1) end as name
                         from sluice.totals t where $1 <> 'login'
                        union all
                       select r.rolname::text from pg_catalog.pg_roles r where $1 = 'login' and r.rolcanlogin) k
                where k.name <> '' order by 1 limit $2"#,
            kind.as_str() as _,
            MOST
        )
        .fetch_all(&self.db)
        .await
        .doing(ASKING)
    }
}
