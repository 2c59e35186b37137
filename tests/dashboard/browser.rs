//! The dashboard in a real browser: what an operator clicks, and whether everybody can use it.

use super::Stage;
use crate::support::browser::Browser;
use crate::support::wait::until;
use std::path::Path;

/// The key that leads from one thing to the next.
const TAB: char = '\u{e004}';

/// Pages with everything that pages have.
const PAGES: [&str; 13] = [
    "/",
    "/batches",
    "/batches/night",
    "/jobs",
    "/failures",
    "/limits",
    "/budgets",
    "/pauses",
    "/schedules",
    "/alerts",
    "/reports/cost",
    "/confirm?action=retry&state=failed",
    "/changes",
];

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
    assert_eq!(browser.path().await, "/jobs?state=failed&class=refused");
    browser.click("//section[@id='jobs']//tbody//td/a").await;
    let story = browser.words().await;
    for part in ["has failed", "refused", "Total:", "Retry"] {
        assert!(story.contains(part), "{part}: {story}");
    }
    // All of the kind, after their number was told.
    browser.click("//nav//a[text()='Failures']").await;
    browser.click("//tr[.//*[text()='refused']]//button[text()='Retry…']").await;
    browser.until_it_says("Retry 3 jobs?").await;
    browser.click("//main//button").await;
    assert!(browser.path().await.starts_with("/changes/"), "{}", browser.path().await);
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
    for (width, height, is_dark, name) in [
        (1280, 900, false, "light"),
        (1280, 900, true, "dark"),
        (390, 844, false, "phone-light"),
        (390, 844, true, "phone-dark"),
    ] {
        browser.look_like(width, height, is_dark).await;
        for page in PAGES {
            browser.open(&format!("http://{}{page}", site.address)).await;
            let wide = browser.eval("document.documentElement.scrollWidth > window.innerWidth").await;
            assert_eq!(wide, false, "{page} is wider than {width}");
            // Each field has a name; each link and each button has words; there is one first heading.
            let nameless = "[...document.querySelectorAll('input:not([type=hidden]), select')]
                .filter(field => !field.labels.length).map(field => field.outerHTML)";
            assert_eq!(browser.eval(nameless).await, serde_json::json!([]), "{page}");
            let wordless = "[...document.querySelectorAll('a, button')].filter(one => !one.innerText.trim()
                && !one.textContent.trim()).map(one => one.outerHTML)";
            assert_eq!(browser.eval(wordless).await, serde_json::json!([]), "{page}");
            assert_eq!(browser.eval("document.querySelectorAll('h1').length").await, 1, "{page}");
            let twice = "[...document.querySelectorAll('[id]')].map(one => one.id)
                .filter((id, at, all) => all.indexOf(id) !== at)";
            assert_eq!(browser.eval(twice).await, serde_json::json!([]), "{page}");
            let shown = page.split(['/', '?']).nth(1).filter(|name| !name.is_empty()).unwrap_or("overview");
            browser.picture(&format!("dashboard-{shown}-{name}")).await;
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
