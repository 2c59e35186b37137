//! The roles that applications, reports and workers are given, and their rights.

use super::Finding;
use std::collections::BTreeMap;

/// The roles and their rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Roles that do not exist.
    pub missing: Vec<String>,
    /// For each role that exists, the rights that it should have and lacks, as a grant states them.
    pub lacking: BTreeMap<String, Vec<String>>,
    /// The owner of the schema, who may grant rights in it.
    pub owner: String,
}

impl Roles {
    /// The faults of the roles, a sentence each; empty when all is well.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let missing = self.missing.iter().map(|role| format!("the role {role} is missing"));
        let lacking = self.lacking.iter().map(|(role, rights)| {
            let more = if rights.len() > 3 { format!(" and {} more", rights.len() - 3) } else { String::new() };
            let shown: Vec<&str> = rights.iter().take(3).map(String::as_str).collect();
            format!("the role {role} lacks {}{more}", shown.join(", "))
        });
        missing.chain(lacking).collect()
    }

    /// The commands that correct the faults; empty when there are none.
    #[must_use]
    pub fn remedy(&self) -> String {
        let migrate = format!("run `sluice migrate` as {}, who owns the schema and grants what is missing", self.owner);
        if self.missing.is_empty() {
            return if self.lacking.is_empty() { String::new() } else { migrate };
        }
        let statements: Vec<String> = self.missing.iter().map(|role| format!("create role {role} nologin;")).collect();
        format!("let an administrator run `{}`; then {migrate}", statements.join(" "))
    }
}

pub(super) fn roles(roles: &Roles) -> Finding {
    let faults = roles.faults();
    if faults.is_empty() {
        return Finding::ok("roles", "the three roles are there with their rights");
    }
    Finding::warning(
        "roles",
        faults.join("; "),
        "logins that are to enqueue, to read reports or to work cannot be given what they need",
        roles.remedy(),
    )
}
