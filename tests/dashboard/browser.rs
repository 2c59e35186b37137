//! The dashboard in a real browser: what an operator clicks, and whether everybody can use it.

use super::Stage;
use crate::support::browser::Browser;
use crate::support::wait::until;
use std::path::Path;

/// The key that leads from one thing to the next.
const TAB: char = '\u{e004}';

/// Pages with everything that pages have.
const PAGES: [&str; 16] = [
    "/",
    "/batches",
    "/batches/night",
    "/jobs",
    "/failures",
    "/limits",
    "/budgets",
    "/pauses",
    "/schedules",
    "/game-days/practice",
    "/alerts",
    "/reports/cost?since=1h&compare=before",
    "/doctor",
    "/confirm?action=retry&state=failed",
    "/changes",
    "/nothing",
];

/// Names that are as long as names may be, without a space, and that turn the words around them.
const UNBROKEN: &str = "wwwwwwwwwwWWWWWWWWWW";
const TURNED: &str = "moc\u{202e}txt.exe\u{200b}\u{2066}";

/// Words whose colour is too close to the colour behind them, by the formula of WCAG 2 (AA).
const FAINT: &str = "(() => {
    const light = ([r, g, b]) => { const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
    const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
    const behind = (one) => { for (; one; one = one.parentElement) {
        const colour = numbers(getComputedStyle(one).backgroundColor);
        if (colour.length === 3 || colour[3] > 0) return colour; } return [255, 255, 255]; };
    const faint = [];
    for (const one of document.querySelectorAll('body *')) {
        const speaks = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!speaks && !['INPUT', 'SELECT'].includes(one.tagName)) continue;
        if (!one.getClientRects().length) continue;
        const style = getComputedStyle(one);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const [a, b] = [light(numbers(style.color)), light(behind(one))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < (isLarge ? 3 : 4.5)) faint.push(`${one.outerHTML.slice(0, 90)}: ${contrast.toFixed(1)}`);
    }
    return faint;
})()";

/// What can have the focus and does not show it.
const UNMARKED: &str =
    "[...document.querySelectorAll('a, button, input:not([type=hidden]), select, summary, [tabindex]')]
    .filter((one) => { one.focus({ focusVisible: true, preventScroll: true }); const style = getComputedStyle(one);
        return document.activeElement !== one || style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 2; })
    .map((one) => one.outerHTML.slice(0, 90))";

/// What sticks out of the window and is in no box that scrolls.
const STICKING_OUT: &str = "[...document.querySelectorAll('body *')]
    .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        && !one.closest('.scroll') && getComputedStyle(one).position !== 'absolute')
    .map((one) => one.outerHTML.slice(0, 90))";

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_clicks_from_what_fails_to_one_jobs_story_and_has_its_kind_tried_again() {
    let Some(browser) = Browser::start().await else { return };
    let stage = Stage::new("").await;
    let site = stage.site().await;
    stage.fill().await;
    browser.look_like(1280, 900, false).await;
    browser.open(&format!("http://{}/", site.address)).await;
    browser.click("//nav//a[text()='Failures']").await;
    browser.click("//tr[.//*[text()='refused']]//a[text()='jobs']").await;
    browser.until_at("/jobs?state=failed&class=refused").await;
    browser.click("//section[@id='jobs']//tbody//td/a").await;
    browser.until_at("/jobs/").await;
    for part in ["has failed", "refused", "Total:", "Retry"] {
        browser.until_it_says(part).await;
    }
    // All of the kind, after their number was told.
    browser.click("//nav//a[text()='Failures']").await;
    browser.click("//tr[.//*[text()='refused']]//button[text()='Retry…']").await;
    browser.until_it_says("Retry 3 jobs?").await;
    browser.click("//main//button").await;
    browser.until_at("/changes/").await;
    // The page follows it without being loaded again.
    browser.until_it_says("done").await;
    until("they are asked again", async || stage.simulator.verdict().total.calls == 19).await;
    // A pause made elsewhere appears, and is ended here.
    browser.click("//nav//a[text()='Pauses']").await;
    sqlx::query("select sluice.pause('route', 'other', 'lunch')").execute(&stage.pool).await.unwrap();
    browser.until_it_says("lunch").await;
    browser.click("//tr[.//*[text()='lunch']]//button[text()='Resume']").await;
    let pauses = "select count(*) from sluice.pause where name = 'other'";
    until("it goes on", async || sqlx::query_scalar::<_, i64>(pauses).fetch_one(&stage.pool).await.unwrap() == 0).await;
    // A schedule is run now.
    browser.click("//nav//a[text()='Schedules']").await;
    browser.click("//tr[.//*[text()='rare'] or td[text()='rare']]//button[text()='Run now']").await;
    browser.until_it_says("done").await;
    until("its job is asked", async || stage.simulator.verdict().total.calls == 20).await;
    browser.close().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_fit_a_phone_and_can_be_used_by_keyboard_and_screen_reader() {
    let Some(browser) = Browser::start().await else { return };
    let stage = Stage::new("").await;
    let site = stage.site().await;
    stage.fill().await;
    stage.program.output(&["budget", "set", "all", "5"]).await;
    for name in [UNBROKEN.repeat(10).as_str(), TURNED] {
        stage.enqueue(name, "go", 1).await;
        sqlx::query("select sluice.pause('project', $1, $1)").bind(name).execute(&stage.pool).await.unwrap();
    }
    until("they are done", async || stage.count("succeeded").await == 15).await;
    let failed = "select min(job_id) from sluice.result where state = 'failed'";
    let failed: i64 = sqlx::query_scalar(failed).fetch_one(&stage.pool).await.unwrap();
    let story = format!("/jobs/{failed}");
    let long = format!("/batches/{}", UNBROKEN.repeat(10));
    let turned = format!("/batches/{}", encoded(TURNED));
    let pages = PAGES.into_iter().chain([story.as_str(), &long, &turned, "/jobs?batch=%3Cscript%3E"]);
    let pages: Vec<&str> = pages.collect();
    for (width, height, is_dark) in [(1280, 900, false), (1280, 900, true), (360, 780, false), (360, 780, true)] {
        browser.look_like(width, height, is_dark).await;
        for page in &pages {
            browser.open(&format!("http://{}{page}", site.address)).await;
            let at = format!("{page} at {width} px{}", if is_dark { ", dark" } else { "" });
            // What is folded away has to fit, too.
            browser.eval("document.querySelectorAll('details').forEach(one => one.open = true)").await;
            let is_wide = browser.eval(&format!("document.documentElement.scrollWidth > {width}")).await;
            assert_eq!(is_wide, false, "{at}: {}", browser.eval(STICKING_OUT).await);
            // Each field has a name; each link and each button has words; there is one first heading.
            let nameless = "[...document.querySelectorAll('input:not([type=hidden]), select')]
                .filter(field => !field.labels.length).map(field => field.outerHTML)";
            let wordless = "[...document.querySelectorAll('a, button')].filter(one => !one.innerText.trim()
                && !one.textContent.trim()).map(one => one.outerHTML)";
            let twice = "[...document.querySelectorAll('[id]')].map(one => one.id)
                .filter((id, at, all) => all.indexOf(id) !== at)";
            for (script, what) in [
                (nameless, "fields without a name"),
                (wordless, "links without words"),
                (twice, "ids that are there twice"),
                (STICKING_OUT, "what sticks out"),
                (FAINT, "faint words"),
                (UNMARKED, "what does not show the focus"),
            ] {
                assert_eq!(browser.eval(script).await, serde_json::json!([]), "{at}: {what}");
            }
            assert_eq!(browser.eval("document.querySelectorAll('h1').length").await, 1, "{at}");
            assert_eq!(browser.eval("document.scripts.length").await, 1, "{at}: a name has become a script");
            let words = browser.words().await;
            assert!(!words.contains(['\u{202e}', '\u{200b}', '\u{2066}']), "{at}: {words}");
        }
    }
    // The first key press leads to the way past the list of pages.
    browser.look_like(1280, 900, false).await;
    browser.open(&format!("http://{}/batches", site.address)).await;
    browser.press(TAB).await;
    assert_eq!(browser.eval("document.activeElement.className").await, "skip");
    browser.close().await;
    site.stop().await;
}

fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"))
}

/// How bright a colour is, as WCAG has it.
fn brightness(colour: &str) -> f64 {
    let part = |at: usize| {
        let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
}

#[test]
fn words_stand_out_from_what_is_behind_them_in_both_lights() {
    let style = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/dashboard/style.css");
    let style = std::fs::read_to_string(style).unwrap();
    let light = style.split_once("@media (prefers-color-scheme: dark)").unwrap();
    for (name, part) in [("light", light.0), ("dark", light.1.split_once("* {").unwrap().0)] {
        let colour = |of: &str| {
            let at = part.find(&format!("--{of}: ")).unwrap_or_else(|| panic!("{name}: {of}"));
            part[at..].split_once(": ").unwrap().1[..7].to_owned()
        };
        for ink in ["ink", "soft", "link", "good", "bad", "warn"] {
            for back in ["back", "card"] {
                let (one, other) = (brightness(&colour(ink)), brightness(&colour(back)));
                let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                assert!(contrast >= 4.5, "{name}: {ink} on {back} is {contrast:.1}");
            }
        }
    }
}
