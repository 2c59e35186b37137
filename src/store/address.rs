//! The address of a database: one server, or several of which one takes writes.

use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use std::fmt;
use std::str::FromStr;
use url_parts::Parts;

/// The servers that a URL names, in its order.
///
/// As with libpq, `postgres://user@one:5432,two:5433/database?target_session_attrs=read-write` names two, of which the
/// first that takes writes is used. Members of the query that this program does not honour are refused: ignoring them
/// would be worse.
#[derive(Clone, Debug)]
pub struct Address {
    servers: Vec<PgConnectOptions>,
    /// Whether the URL asks for a server that takes writes.
    must_be_writable: bool,
    /// The origin of the URL, for messages: a variable, an option, a key of the configuration.
    set_by: Option<String>,
}

/// The fault of a URL. Never quotes it: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddressError {}

/// Members of the query that the driver honours.
const HONOURED: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "hostaddr",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

impl Address {
    /// One server.
    #[must_use]
    pub fn of(server: PgConnectOptions) -> Self {
        Self { servers: vec![server], must_be_writable: false, set_by: None }
    }

    /// The same address, with its origin.
    #[must_use]
    pub fn set_by(self, name: impl Into<String>) -> Self {
        Self { set_by: Some(name.into()), ..self }
    }

    /// Whether a URL has a password in it.
    #[must_use]
    pub fn holds_password(url: &str) -> bool {
        Parts::of(url).is_ok_and(|parts| {
            let has_value = |(_, name, value): &(String, String, String)| name == "password" && !value.is_empty();
            parts.user.contains(':') || parts.query.iter().any(has_value)
        })
    }

    /// The same URL as Postgres's own programs take it, without its password, and the password. Members of the query
    /// that only the driver of this program knows are left out or get the name that the programs know.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn for_programs(url: &str) -> Result<(String, Option<SecretString>), AddressError> {
        // It names the fault of the URL, member by member.
        url.parse::<Self>()?;
        let Parts { scheme, user, hosts, path, query } = Parts::of(url)?;
        let (user, mut password) = match user.strip_suffix('@').unwrap_or_default().split_once(':') {
            Some((name, password)) => (format!("{name}@"), url_parts::decoded(password)),
            None => (user, None),
        };
        let hosts: Vec<String> = hosts
            .into_iter()
            .map(|(host, port)| if port.is_empty() { host } else { format!("{host}:{port}") })
            .collect();
        let mut members: Vec<(&str, String)> = Vec::new();
        let mut options: Vec<String> = Vec::new();
        for (_, name, value) in &query {
            match name.as_str() {
                "password" => password = Some(value.clone()),
                "statement-cache-capacity" => {}
                "ssl-mode" => members.push(("sslmode", value.clone())),
                "ssl-root-cert" | "ssl-ca" => members.push(("sslrootcert", value.clone())),
                "ssl-cert" => members.push(("sslcert", value.clone())),
                "ssl-key" => members.push(("sslkey", value.clone())),
                "options" => options.push(value.clone()),
                name => match name.strip_prefix("options[").and_then(|name| name.strip_suffix(']')) {
                    Some(setting) => options.push(format!("-c {setting}={}", value.replace(' ', "\\ "))),
                    None => members.push((name, value.clone())),
                },
            }
        }
        if !options.is_empty() {
            members.push(("options", options.join(" ")));
        }
        let query: Vec<String> =
            members.iter().map(|(name, value)| format!("{name}={}", url_parts::encoded(value))).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let password = password.filter(|password| !password.is_empty()).map(SecretString::from);
        Ok((format!("{scheme}://{user}{}{path}{query}", hosts.join(",")), password))
    }

    /// A question to the operator about this failure: is the server reachable, and the address right?
    pub(super) fn doubt(&self, failure: &sqlx::Error) -> String {
        let set_by = self.set_by.as_deref();
        let answer = failure.as_database_error().map(|error| error.code().unwrap_or_default());
        match (answer.as_deref(), set_by) {
            // A server that refuses a connection runs.
            (Some("3D000"), Some(name)) => format!("Is it still to be made (`createdb`), or is {name} wrong?"),
            (Some("3D000"), None) => "Is it still to be made (`createdb`)?".to_owned(),
            (Some("57P03"), _) => "Does it start, or stop?".to_owned(),
            (Some(_), Some(name)) => format!("Is {name} right?"),
            (Some(_), None) => "Is the address right?".to_owned(),
            (None, Some(name)) => format!("Is it running, and is {name} right?"),
            (None, None) => "Is it running?".to_owned(),
        }
    }

    /// A question to the operator: does it lead to the right one of several servers?
    pub(super) fn doubt_of_role(&self) -> String {
        match &self.set_by {
            Some(name) => format!("Is a failover under way, or does {name} lead to a standby?"),
            None => "Is a failover under way?".to_owned(),
        }
    }

    /// The servers, in the order of the URL; never empty.
    #[must_use]
    pub fn servers(&self) -> &[PgConnectOptions] {
        &self.servers
    }

    /// Whether only a server that takes writes will do.
    #[must_use]
    pub fn must_be_writable(&self) -> bool {
        self.must_be_writable
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, AddressError> {
        let parts = Parts::of(url)?;
        let mut must_be_writable = false;
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        let mut kept = String::new();
        for (member, name, value) in &parts.query {
            match name.as_str() {
                "host" => hosts = value.split(',').map(str::to_owned).collect(),
                "port" => ports = value.split(',').map(str::to_owned).collect(),
                "target_session_attrs" => {
                    must_be_writable = match value.as_str() {
                        "any" => false,
                        "read-write" | "primary" => true,
                        _ => {
                            return Err(AddressError(
                                "has a target_session_attrs that is not supported: expected any, read-write or primary"
                                    .to_owned(),
                            ));
                        }
                    }
                }
                name if HONOURED.contains(&name) || name.starts_with("options[") => {
                    kept.push(if kept.is_empty() { '?' } else { '&' });
                    kept.push_str(member);
                }
                name => {
                    return Err(AddressError(format!("has the option {name:?}, which is not supported: leave it out")));
                }
            }
        }
        if hosts.is_empty() {
            (hosts, ports) = parts.hosts.into_iter().unzip();
        } else if ports.is_empty() {
            ports.push(String::new());
        }
        let one_for_all = ports.len() == 1;
        if !one_for_all && ports.len() != hosts.len() {
            return Err(AddressError(format!("names {} hosts and {} ports", hosts.len(), ports.len())));
        }
        let servers = hosts.iter().enumerate().map(|(index, host)| {
            let port = ports.get(if one_for_all { 0 } else { index }).map_or("", String::as_str);
            server(&format!("{}://{}localhost{}{kept}", parts.scheme, parts.user, parts.path), host, port)
        });
        Ok(Self { servers: servers.collect::<Result<_, _>>()?, must_be_writable, set_by: None })
    }
}

/// The server at one host of a URL, given without its hosts.
fn server(url: &str, host: &str, port: &str) -> Result<PgConnectOptions, AddressError> {
    // The driver's own words may quote the URL.
    let unreadable = |_| AddressError("is not a URL that can be read: check its user, password and options".to_owned());
    let mut options: PgConnectOptions = url.parse().map_err(unreadable)?;
    let host = url_parts::decoded(host).ok_or_else(|| AddressError("names a host that is no text".to_owned()))?;
    // A URL without a host leads where Postgres's own programs go: to PGHOST, or the socket of this machine's server.
    let host = if host.is_empty() { PgConnectOptions::new_without_pgpass().get_host().to_owned() } else { host };
    if host.starts_with('/') {
        options = options.socket(&host);
    } else if !host.is_empty() {
        // An IPv6 address stands in brackets only inside a URL.
        options = options.host(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host));
    }
    if port.is_empty() {
        return Ok(options);
    }
    let port =
        port.parse().map_err(|_| AddressError(format!("has the port {port:?}: expected a number up to 65535")))?;
    Ok(options.port(port))
}

/// A URL taken apart, since no crate knows URLs with several hosts.
mod url_parts {
    use super::AddressError;

    pub(super) struct Parts {
        pub scheme: String,
        /// With its `@`; empty without a user.
        pub user: String,
        pub hosts: Vec<(String, String)>,
        /// With its slash.
        pub path: String,
        /// Each member as written, its name, and its value decoded.
        pub query: Vec<(String, String, String)>,
    }

    impl Parts {
        /// Takes a URL apart.
        pub fn of(url: &str) -> Result<Self, AddressError> {
            let wrong = |what: &str| AddressError(what.to_owned());
            let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("is not a URL"))?;
            if !matches!(scheme, "postgres" | "postgresql") {
                return Err(wrong("is not the URL of a Postgres database"));
            }
            let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
            let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
            let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
            let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
            let hosts = hosts.split(',').map(|host| match host.rsplit_once(':') {
                // Colons of an IPv6 address do not count.
                Some((host, port)) if !port.contains(']') => (host.to_owned(), port.to_owned()),
                _ => (host.to_owned(), String::new()),
            });
            let member = |member: &str| {
                let (name, value) = member.split_once('=').unwrap_or((member, ""));
                let value = decoded(&value.replace('+', " ")).ok_or_else(|| wrong("has an option that is no text"))?;
                Ok((member.to_owned(), decoded(name).unwrap_or_default(), value))
            };
            Ok(Self {
                scheme: scheme.to_owned(),
                user: if user.is_empty() { String::new() } else { format!("{user}@") },
                hosts: hosts.collect(),
                path: format!("/{path}"),
                query: query.split('&').filter(|part| !part.is_empty()).map(member).collect::<Result<_, _>>()?,
            })
        }
    }

    /// A value as a member of a query takes it.
    pub(super) fn encoded(text: &str) -> String {
        use std::fmt::Write as _;
        text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~/,".contains(&byte) {
                out.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
    }

    /// The meaning of percent-encoded text; `None` if that is not UTF-8.
    pub(super) fn decoded(text: &str) -> Option<String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| first == b'%');
            bytes.push(byte.unwrap_or(first));
            rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
        }
        String::from_utf8(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Host or socket, and port, of each server.
    fn servers(url: &str) -> Vec<(String, u16)> {
        let address: Address = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
        let place = |server: &PgConnectOptions| {
            server.get_socket().map_or_else(|| server.get_host().to_owned(), |path| path.display().to_string())
        };
        address.servers().iter().map(|server| (place(server), server.get_port())).collect()
    }

    #[test]
    fn one_server_or_several_are_read() {
        for (url, expected) in [
            ("postgres://u:p@db/sluice", vec![("db", 5432)]),
            ("postgresql://u@db:6432/sluice?sslmode=require", vec![("db", 6432)]),
            ("postgres://u@[::1]:5433/sluice", vec![("::1", 5433)]),
            ("postgres://u@[fd00::7]/sluice", vec![("fd00::7", 5432)]),
            ("postgres://u@one,two/sluice", vec![("one", 5432), ("two", 5432)]),
            (
                "postgres://u@one:1,[::1]:2,three:3/d?target_session_attrs=read-write",
                vec![("one", 1), ("::1", 2), ("three", 3)],
            ),
            ("postgres:///d?host=one,two&port=7,8&user=u", vec![("one", 7), ("two", 8)]),
            ("postgres:///d?host=one,two&port=7", vec![("one", 7), ("two", 7)]),
            ("postgresql:///d?host=%2Ftmp%2Fpg&port=5432&user=u", vec![("/tmp/pg", 5432)]),
            ("postgres://u@%2Ftmp%2Fpg/d", vec![("/tmp/pg", 5432)]),
        ] {
            let expected: Vec<(String, u16)> =
                expected.into_iter().map(|(host, port)| (host.to_owned(), port)).collect();
            assert_eq!(servers(url), expected, "{url}");
        }
        let usual = PgConnectOptions::new_without_pgpass();
        for url in ["postgres:///d", "postgres://u@/d?sslmode=disable"] {
            assert_eq!(servers(url), [(usual.get_host().to_owned(), usual.get_port())], "as libpq does: {url}");
        }
        let address: Address = "postgres://me:p%40ss@one,two/my%20base?target_session_attrs=primary".parse().unwrap();
        assert!(address.must_be_writable());
        assert!(
            address
                .servers()
                .iter()
                .all(|server| server.get_database() == Some("my base") && server.get_username() == "me")
        );
    }

    #[test]
    fn other_programs_get_the_same_place_without_the_password() {
        use secrecy::ExposeSecret as _;
        for (url, expected, password) in [
            (
                "postgres://u:p%40ss@db:6432/my%20base?sslmode=require",
                "postgres://u@db:6432/my%20base?sslmode=require",
                "p@ss",
            ),
            ("postgresql:///d?host=%2Ftmp%2Fpg&port=7&user=u", "postgresql:///d?host=/tmp/pg&port=7&user=u", ""),
            (
                "postgres://u@a:1,[::1]:2/d?target_session_attrs=primary",
                "postgres://u@a:1,[::1]:2/d?target_session_attrs=primary",
                "",
            ),
            (
                "postgres://h/d?password=s+x&ssl-ca=%2Fa+b&statement-cache-capacity=5",
                "postgres://h/d?sslrootcert=/a%20b",
                "s x",
            ),
            (
                "postgres://u:@h/d?options[search_path]=a&options=-c%20jit%3Doff",
                "postgres://u@h/d?options=-c%20search_path%3Da%20-c%20jit%3Doff",
                "",
            ),
        ] {
            let (told, secret) = Address::for_programs(url).unwrap();
            assert_eq!(
                (told.as_str(), secret.as_ref().map_or("", |secret| secret.expose_secret())),
                (expected, password)
            );
        }
        let refused = Address::for_programs("postgres://u:secret@h/d?channel_binding=require").unwrap_err();
        assert!(!refused.to_string().contains("secret"));
    }

    #[test]
    fn what_is_not_honoured_is_refused_and_no_password_is_repeated() {
        for (url, expected) in [
            ("mysql://u:secret@h/d", "is not the URL of a Postgres database"),
            ("secret", "is not a URL"),
            ("postgres://u:secret@h/d?target_session_attrs=standby", "target_session_attrs that is not supported"),
            (
                "postgres://u:secret@h/d?channel_binding=require",
                "the option \"channel_binding\", which is not supported",
            ),
            ("postgres://u:secret@h/d?load_balance_hosts=random", "the option \"load_balance_hosts\""),
            ("postgres://u:secret@h:port/d", "has the port \"port\""),
            ("postgres://u:secret@h/d?sslmode=secret", "is not a URL that can be read"),
            ("postgres:///d?host=a,b,c&port=1,2", "names 3 hosts and 2 ports"),
        ] {
            let error = url.parse::<Address>().expect_err(url).to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
