//! A real browser without a window: Chromium, driven by way of its WebDriver.

use super::clock;
use super::site::exchange;
use super::wait::{PATIENCE, until};
use serde_json::{Value, json};
use std::process::{Command as Finder, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The member that names an element, by the standard.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// It stays on this machine: nothing is looked up, updated or reported.
const SWITCHES: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

/// A browser with one page.
pub struct Browser {
    _driver: Child,
    _said: Lines<BufReader<ChildStdout>>,
    _profile: tempfile::TempDir,
    address: String,
    session: String,
}

impl Browser {
    /// Starts one; `None` only when the tests are told to do without (`SLUICE_WITHOUT_CHROMIUM=1`), which it says.
    pub async fn start() -> Option<Self> {
        if std::env::var("SLUICE_WITHOUT_CHROMIUM").is_ok_and(|value| value == "1") {
            eprintln!("SLUICE_WITHOUT_CHROMIUM=1: the dashboard is not opened in a browser");
            return None;
        }
        let is_there = Finder::new("chromedriver").arg("--version").output().is_ok();
        assert!(is_there, "there is no chromedriver: run scripts/programs chromium, or set SLUICE_WITHOUT_CHROMIUM=1");
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().expect("the driver says its port");
            if let Some((_, rest)) = line.split_once("started successfully on port ") {
                break rest.trim_end_matches('.').to_owned();
            }
        };
        let address = format!("127.0.0.1:{port}");
        let folder = format!("--user-data-dir={}", profile.path().join("profile").display());
        let switches: Vec<&str> = SWITCHES.into_iter().chain([folder.as_str()]).collect();
        let wish = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": switches } } } });
        let headers = "content-type: application/json\r\n";
        let reply = exchange(&address, "POST", "/session", headers, &wish.to_string()).await;
        let session = reply.json()["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned();
        Some(Self { _driver: driver, _said: lines, _profile: profile, address, session })
    }

    async fn try_to(&self, path: &str, body: &Value) -> Result<Value, Value> {
        let path = format!("/session/{}/{path}", self.session);
        let headers = "content-type: application/json\r\n";
        let reply = exchange(&self.address, "POST", &path, headers, &body.to_string()).await;
        let value = reply.json()["value"].clone();
        if reply.status == 200 { Ok(value) } else { Err(value) }
    }

    async fn do_it(&self, path: &str, body: &Value) -> Value {
        self.try_to(path, body).await.unwrap_or_else(|error| panic!("{path} {body}: {error:#}"))
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) {
        self.do_it("url", &json!({ "url": url })).await;
    }

    /// The size of the window, and whether the user likes it dark.
    pub async fn look_like(&self, width: u32, height: u32, is_dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        for (command, wish) in [("Emulation.setDeviceMetricsOverride", size), ("Emulation.setEmulatedMedia", media)] {
            self.do_it("goog/cdp/execute", &json!({ "cmd": command, "params": wish })).await;
        }
    }

    /// The value of a script in the page. A page that reloads itself meanwhile is asked again: scripts ask, or do what
    /// may be done twice.
    pub async fn eval(&self, script: &str) -> Value {
        let wish = json!({ "script": format!("return {script}"), "args": [] });
        let mut refused = None;
        let asking = async {
            loop {
                match self.try_to("execute/sync", &wish).await {
                    Ok(value) => return value,
                    Err(error) => refused = Some(error),
                }
                clock::pace(Duration::from_millis(100)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, asking).await;
        found.unwrap_or_else(|_| panic!("{script}: {refused:?}"))
    }

    /// The path of the page that is open.
    pub async fn path(&self) -> String {
        self.eval("location.pathname + location.search").await.as_str().unwrap().to_owned()
    }

    /// The words on the page.
    pub async fn words(&self) -> String {
        self.eval("document.body?.innerText ?? ''").await.as_str().unwrap().to_owned()
    }

    /// The words of the first element that this CSS selector finds, in one line; `None`: there is none.
    pub async fn words_of(&self, selector: &str) -> Option<String> {
        let words = self.eval(&format!("document.querySelector({})?.innerText", json!(selector))).await;
        Some(words.as_str()?.replace(['\n', '\t'], " "))
    }

    /// Opens a page until a part of it has all these words: a page that the database was too busy for says so, and is
    /// as it should be a moment later.
    pub async fn open_until_it_has(&self, url: &str, selector: &str, parts: &[&str]) {
        let mut last = None;
        let looking = async {
            loop {
                self.open(url).await;
                last = self.words_of(selector).await;
                if last.as_ref().is_some_and(|words| parts.iter().all(|part| words.contains(part))) {
                    return;
                }
                clock::pace(Duration::from_millis(200)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        assert!(found.is_ok(), "{url} {selector} has not all of {parts:?}: {last:?}");
    }

    /// Waits until the page has these words, without loading it again.
    pub async fn until_it_says(&self, words: &str) {
        until(&format!("the page says {words:?}"), async || self.words().await.contains(words)).await;
    }

    /// Waits until a page whose path begins so is open: a click does not always wait for the page that it leads to.
    pub async fn until_at(&self, begin: &str) {
        until(&format!("the page is {begin}"), async || self.path().await.starts_with(begin)).await;
    }

    /// Clicks the first element that this XPath finds, as soon as the page that is on its way has one.
    pub async fn click(&self, xpath: &str) {
        until(&format!("{xpath} is clicked"), async || {
            let wish = json!({ "using": "xpath", "value": xpath });
            let Ok(found) = self.try_to("element", &wish).await else { return false };
            let element = found[ELEMENT].as_str().unwrap();
            self.try_to(&format!("element/{element}/click"), &json!({})).await.is_ok()
        })
        .await;
    }

    /// Types into the element that has the focus.
    pub async fn press(&self, key: char) {
        let key = key.to_string();
        let keys = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": keys }] });
        self.do_it("actions", &actions).await;
    }

    /// A picture of the part of the page that is in the window, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let path = format!("/session/{}/screenshot", self.session);
        let reply = exchange(&self.address, "GET", &path, "", "").await.json();
        base64_of::decode(reply["value"].as_str().unwrap())
    }

    /// Ends the browser.
    pub async fn close(self) {
        let path = format!("/session/{}", self.session);
        exchange(&self.address, "DELETE", &path, "", "").await;
    }
}

/// Pictures come as base64.
mod base64_of {
    pub fn decode(text: &str) -> Vec<u8> {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let values: Vec<u32> = text
            .bytes()
            .filter_map(|byte| LETTERS.iter().position(|letter| *letter == byte))
            .map(|value| u32::try_from(value).unwrap())
            .collect();
        let mut bytes = Vec::new();
        for four in values.chunks(4) {
            let bits = four.iter().fold(0, |bits, value| bits << 6 | value) << (6 * (4 - four.len()));
            bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
        }
        bytes
    }
}
