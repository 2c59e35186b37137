//! The language and the script of a text: of answers, and of prompts.
//!
//! Only a clear case is a fault: enough letters, and a finding that is reliable. Code, addresses and, in JSON, short
//! values such as labels are no prose, and say nothing of it.

use serde_json::Value;
use std::fmt;
use whatlang::{Detector, Lang, Script, detect, detect_script};

/// Fewer letters tell no language, …
const LETTERS_OF_LANGUAGE: usize = 60;
/// … and fewer no script.
const LETTERS_OF_SCRIPT: usize = 8;

/// A sentence with fewer is not looked at by itself.
const LETTERS_OF_SENTENCE: usize = 25;
/// So many Han characters without kana are not Japanese.
const LETTERS_OF_HAN: usize = 30;
/// A text is mixed when more than one letter in so many is in a sentence of a language that is asked for.
const WANTED_SHARE: usize = 4;

/// Values of JSON with fewer words are labels.
const WORDS_OF_VALUE: usize = 3;

/// So many bytes of prose tell more than enough: the rest of a long text is not looked at.
const MOST_PROSE: usize = 64 << 10;

/// An answer in a demanded script may have this share of its letters in lines of another: one in so many.
const OTHER_SHARE: usize = 5;

/// A text in which one letter in so many is kana is Japanese.
const KANA_SHARE: usize = 10;

/// Languages so close that a short text of one is taken for another.
const NEAR: &[&[Lang]] =
    &[&[Lang::Hrv, Lang::Srp], &[Lang::Nob, Lang::Dan], &[Lang::Ces, Lang::Slk], &[Lang::Ind, Lang::Jav]];

/// The two letters of a language (ISO 639-1), where it has some.
const TWO_LETTERS: &[(&str, Lang)] = &[
    ("af", Lang::Afr),
    ("ak", Lang::Aka),
    ("am", Lang::Amh),
    ("ar", Lang::Ara),
    ("az", Lang::Aze),
    ("be", Lang::Bel),
    ("bg", Lang::Bul),
    ("bn", Lang::Ben),
    ("ca", Lang::Cat),
    ("cs", Lang::Ces),
    ("da", Lang::Dan),
    ("de", Lang::Deu),
    ("el", Lang::Ell),
    ("en", Lang::Eng),
    ("eo", Lang::Epo),
    ("es", Lang::Spa),
    ("et", Lang::Est),
    ("fa", Lang::Pes),
    ("fi", Lang::Fin),
    ("fr", Lang::Fra),
    ("gu", Lang::Guj),
    ("he", Lang::Heb),
    ("hi", Lang::Hin),
    ("hr", Lang::Hrv),
    ("hu", Lang::Hun),
    ("hy", Lang::Hye),
    ("id", Lang::Ind),
    ("it", Lang::Ita),
    ("ja", Lang::Jpn),
    ("jv", Lang::Jav),
    ("ka", Lang::Kat),
    ("km", Lang::Khm),
    ("kn", Lang::Kan),
    ("ko", Lang::Kor),
    ("la", Lang::Lat),
    ("lt", Lang::Lit),
    ("lv", Lang::Lav),
    ("mk", Lang::Mkd),
    ("ml", Lang::Mal),
    ("mr", Lang::Mar),
    ("my", Lang::Mya),
    ("nb", Lang::Nob),
    ("ne", Lang::Nep),
    ("nl", Lang::Nld),
    ("no", Lang::Nob),
    ("or", Lang::Ori),
    ("pa", Lang::Pan),
    ("pl", Lang::Pol),
    ("pt", Lang::Por),
    ("ro", Lang::Ron),
    ("ru", Lang::Rus),
    ("si", Lang::Sin),
    ("sk", Lang::Slk),
    ("sl", Lang::Slv),
    ("sn", Lang::Sna),
    ("sr", Lang::Srp),
    ("sv", Lang::Swe),
    ("ta", Lang::Tam),
    ("te", Lang::Tel),
    ("th", Lang::Tha),
    ("tk", Lang::Tuk),
    ("tl", Lang::Tgl),
    ("tr", Lang::Tur),
    ("uk", Lang::Ukr),
    ("ur", Lang::Urd),
    ("uz", Lang::Uzb),
    ("vi", Lang::Vie),
    ("yi", Lang::Yid),
    ("zh", Lang::Cmn),
    ("zu", Lang::Zul),
];

/// A language that a text may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLanguage(Lang);

impl TextLanguage {
    /// The language with this code of ISO 639, of two letters or three: `de`, `deu`.
    ///
    /// # Errors
    /// In words: there is none, or none that can be told.
    pub fn parse(code: &str) -> Result<Self, String> {
        let plain = code.trim().to_ascii_lowercase();
        // `de-AT` is German.
        let plain = plain.split(['-', '_']).next().unwrap_or_default();
        let two = TWO_LETTERS.iter().find(|(two, _)| *two == plain).map(|(_, lang)| *lang);
        two.or_else(|| Lang::from_code(plain)).map(Self).ok_or_else(|| format!("{code:?} is no language that is told"))
    }

    /// The codes of two letters of the languages that are told.
    pub fn codes() -> impl Iterator<Item = &'static str> {
        TWO_LETTERS.iter().map(|(two, _)| *two)
    }

    /// The language of a text; `None`: that cannot be told for sure.
    #[must_use]
    pub fn of(prose: &str) -> Option<Self> {
        if letters(prose) < LETTERS_OF_SCRIPT {
            return None;
        }
        let (lang, is_sure) = found_in(prose)?;
        // Some scripts are those of one language.
        let is_alone = || detect_script(prose).is_some_and(|script| script.langs().len() == 1);
        (is_sure || (letters(prose) >= LETTERS_OF_LANGUAGE / 3 && is_alone())).then_some(Self(lang))
    }

    /// Whether a text in that language is one in this, or in one so close that the two are not told apart.
    #[must_use]
    pub fn is_or_is_near(self, other: Self) -> bool {
        self.takes(other.0)
    }

    fn takes(self, found: Lang) -> bool {
        self.0 == found || NEAR.iter().any(|group| group.contains(&self.0) && group.contains(&found))
    }
}

impl fmt::Display for TextLanguage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.eng_name())
    }
}

/// A script that a text may be written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextScript {
    name: &'static str,
    of: &'static [Script],
}

/// The scripts by their names. Japanese is written in three.
const SCRIPTS: &[(&str, &[Script])] = &[
    ("arabic", &[Script::Arabic]),
    ("armenian", &[Script::Armenian]),
    ("bengali", &[Script::Bengali]),
    ("cyrillic", &[Script::Cyrillic]),
    ("devanagari", &[Script::Devanagari]),
    ("ethiopic", &[Script::Ethiopic]),
    ("georgian", &[Script::Georgian]),
    ("greek", &[Script::Greek]),
    ("gujarati", &[Script::Gujarati]),
    ("gurmukhi", &[Script::Gurmukhi]),
    ("han", &[Script::Mandarin]),
    ("hangul", &[Script::Hangul]),
    ("hebrew", &[Script::Hebrew]),
    ("japanese", &[Script::Hiragana, Script::Katakana, Script::Mandarin]),
    ("kannada", &[Script::Kannada]),
    ("khmer", &[Script::Khmer]),
    ("latin", &[Script::Latin]),
    ("malayalam", &[Script::Malayalam]),
    ("myanmar", &[Script::Myanmar]),
    ("oriya", &[Script::Oriya]),
    ("sinhala", &[Script::Sinhala]),
    ("tamil", &[Script::Tamil]),
    ("telugu", &[Script::Telugu]),
    ("thai", &[Script::Thai]),
];

impl TextScript {
    /// The names of all.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SCRIPTS.iter().map(|(name, _)| *name)
    }

    /// The script of this name.
    ///
    /// # Errors
    /// In words: there is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        let plain = name.trim().to_ascii_lowercase();
        let found = SCRIPTS.iter().find(|(known, _)| *known == plain);
        found.map(|(name, of)| Self { name, of }).ok_or_else(|| format!("{name:?} is no script that is told"))
    }
}

impl fmt::Display for TextScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The language of a text, and whether that is sure. A text with kana is Japanese, however much of it is in Han
/// characters.
fn found_in(prose: &str) -> Option<(Lang, bool)> {
    let kana = prose.chars().filter(|c| matches!(c, '\u{3041}'..='\u{30ff}')).count();
    if kana.saturating_mul(KANA_SHARE) > letters(prose) {
        return Some((Lang::Jpn, true));
    }
    detect(prose).map(|found| (found.lang(), found.is_reliable()))
}

/// Why a text is in none of the languages, in words; `None`: it is, or that cannot be told.
#[must_use]
pub fn other_language(prose: &str, wanted: &[TextLanguage]) -> Option<String> {
    let letters = letters(prose);
    if wanted.is_empty() || letters < LETTERS_OF_SCRIPT {
        return None;
    }
    if is_chinese(prose) && wanted.iter().all(|language| language.0 == Lang::Jpn) {
        return Some(format!("it is in Chinese, and {} is asked for", either(wanted)));
    }
    // A script in which none of them is written tells with few letters.
    if let Some(script) = detect_script(prose)
        && !wanted.iter().any(|language| script.langs().contains(&language.0))
        && !(script == Script::Mandarin && wanted.contains(&TextLanguage(Lang::Jpn)))
    {
        return Some(format!("it is in {} letters, and {} is asked for", script.name(), either(wanted)));
    }
    if letters < LETTERS_OF_LANGUAGE {
        return None;
    }
    let (found, _) = found_in(prose).filter(|(_, is_sure)| *is_sure)?;
    let is_wanted = wanted.iter().any(|language| language.takes(found));
    (!is_wanted && !is_mixed(prose, found, wanted))
        .then(|| format!("it is in {}, and {} is asked for", found.eng_name(), either(wanted)))
}

/// Whether much of a text is in a language that is asked for: an answer that quotes another one is no clear case.
fn is_mixed(prose: &str, found: Lang, wanted: &[TextLanguage]) -> bool {
    let detector = Detector::with_allowlist(wanted.iter().map(|language| language.0).chain([found]).collect());
    let (mut all, mut of_wanted) = (0, 0);
    for sentence in prose.split_inclusive(['\n', '.', '!', '?', ';', ':', '\u{3002}']) {
        let letters = letters(sentence);
        if letters < LETTERS_OF_SENTENCE {
            continue;
        }
        all += letters;
        if detector.detect_lang(sentence).is_some_and(|lang| wanted.iter().any(|language| language.takes(lang))) {
            of_wanted += letters;
        }
    }
    of_wanted.saturating_mul(WANTED_SHARE) > all
}

/// Han characters alone, and so many that Japanese would have kana among them.
fn is_chinese(prose: &str) -> bool {
    let is_kana = |c: char| matches!(c, '\u{3041}'..='\u{30ff}');
    let han = prose.chars().filter(|c| matches!(c, '\u{4e00}'..='\u{9fff}')).count();
    han >= LETTERS_OF_HAN && !prose.chars().any(is_kana) && han.saturating_mul(2) > letters(prose)
}

/// Why a text is in none of the scripts, in words; `None`: it is, or that cannot be told.
#[must_use]
pub fn other_script(prose: &str, wanted: &[TextScript]) -> Option<String> {
    let all = letters(prose);
    if wanted.is_empty() || all < LETTERS_OF_SCRIPT {
        return None;
    }
    if is_chinese(prose) && wanted.iter().all(|wanted| wanted.name == "japanese") {
        return Some(format!("it is in Chinese, and {} letters are asked for", either(wanted)));
    }
    let (mut others, mut first) = (0, None);
    for line in prose.lines() {
        let Some(script) = detect_script(line) else { continue };
        if !wanted.iter().any(|wanted| wanted.of.contains(&script)) {
            others += letters(line);
            first = first.or(Some(script));
        }
    }
    let first = first.filter(|_| others >= LETTERS_OF_SCRIPT && others.saturating_mul(OTHER_SHARE) > all)?;
    Some(format!("it is in {} letters, and {} is asked for", first.name(), either(wanted)))
}

fn either(wanted: &[impl fmt::Display]) -> String {
    wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn letters(text: &str) -> usize {
    text.chars().filter(|c| c.is_alphabetic()).count()
}

/// Whether a line looks like code or a formula: many signs, or a word with which statements begin.
fn is_line_of_code(line: &str) -> bool {
    const SIGNS: &str = "{}[]()<>=;\\&^$+%@";
    const LOWER: &[&str] = &[
        "def", "class", "import", "from", "return", "if", "elif", "else", "for", "while", "try", "except", "print",
        "const", "let", "var", "function", "public", "private", "static", "fn", "use", "impl", "struct", "func",
    ];
    const UPPER: &[&str] =
        &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "WITH", "FROM", "WHERE", "JOIN", "GROUP", "ORDER", "LIMIT"];
    let line = line.trim();
    let signs = line.chars().filter(|c| SIGNS.contains(*c)).count();
    let first = line.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    let is_statement = LOWER.contains(&first) && line.ends_with([':', ';', '{', '}', ')', ',']);
    (signs >= 3 && signs.saturating_mul(8) >= letters(line)) || is_statement || UPPER.contains(&first)
}

/// The part of a text that is prose: without code and without addresses. Of a long text its beginning.
#[must_use]
pub fn prose_of(text: &str) -> String {
    let mut prose = String::new();
    let mut is_code = false;
    let beginning = text.get(..text.floor_char_boundary(text.len().min(4 * MOST_PROSE))).unwrap_or_default();
    for line in beginning.lines() {
        if prose.len() >= MOST_PROSE {
            break;
        }
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            continue;
        }
        if is_code || is_line_of_code(line) {
            continue;
        }
        for word in line.split_whitespace().filter(|word| !word.contains("://") && !word.contains('@')) {
            prose.push_str(word);
            prose.push(' ');
        }
        prose.push('\n');
    }
    prose
}

/// The part of a JSON value that is prose: its texts of some words, or of many letters without a gap.
#[must_use]
pub fn prose_of_json(value: &Value) -> String {
    let mut prose = String::new();
    let mut open = vec![value];
    while let Some(value) = open.pop().filter(|_| prose.len() < MOST_PROSE) {
        match value {
            Value::Object(members) => open.extend(members.values()),
            Value::Array(items) => open.extend(items),
            Value::String(text) => {
                let is_prose = text.split_whitespace().count() >= WORDS_OF_VALUE
                    || (!text.is_ascii() && letters(text) >= LETTERS_OF_SCRIPT);
                if is_prose {
                    prose.push_str(&prose_of(text));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    prose
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GERMAN: &str = "Der Zug nach Hamburg fährt heute leider zwanzig Minuten später ab, weil auf der Strecke \
                          gebaut wird. Reisende werden gebeten, auf die Durchsagen am Bahnsteig zu achten.";
    const ENGLISH: &str = "The train to Hamburg leaves twenty minutes late today, because the line is being repaired. \
                           Travellers are asked to listen to the announcements on the platform.";
    const RUSSIAN: &str =
        "Поезд в Гамбург сегодня отправится на двадцать минут позже, потому что на линии идёт ремонт.";
    const CHINESE: &str = "开往汉堡的列车今天晚点二十分钟，因为线路正在维修。";
    const JAPANESE: &str = "ハンブルク行きの列車は、線路の修理のため、本日二十分遅れて出発します。";

    fn languages(codes: &[&str]) -> Vec<TextLanguage> {
        codes.iter().map(|code| TextLanguage::parse(code).unwrap()).collect()
    }

    fn scripts(names: &[&str]) -> Vec<TextScript> {
        names.iter().map(|name| TextScript::parse(name).unwrap()).collect()
    }

    #[test]
    fn an_answer_in_another_language_is_told_and_a_doubtful_one_is_not() {
        for (text, wanted, found) in [
            (GERMAN, &["de"][..], None),
            (GERMAN, &["en", "deu"], None),
            (GERMAN, &["en"], Some("it is in German, and English is asked for")),
            (ENGLISH, &["de", "fr"], Some("it is in English, and German or French is asked for")),
            (RUSSIAN, &["ru"], None),
            (RUSSIAN, &["en"], Some("it is in Cyrillic letters, and English is asked for")),
            (CHINESE, &["zh"], None),
            (CHINESE, &["de"], Some("it is in Mandarin letters, and German is asked for")),
            (JAPANESE, &["ja"], None),
            (JAPANESE, &["en"], Some("letters, and English is asked for")),
            // Too short to tell, and in the right letters.
            ("positive", &["de"], None),
            ("Yes.", &["zh"], None),
            ("Paris, Texas 12", &["de"], None),
            ("", &["de"], None),
            (GERMAN, &[], None),
        ] {
            let told = other_language(&prose_of(text), &languages(wanted));
            let is_right = match found {
                None => told.is_none(),
                Some(words) => told.as_ref().is_some_and(|told| told.contains(words)),
            };
            assert!(is_right, "{wanted:?} {told:?}: {text}");
        }
    }

    #[test]
    fn the_language_of_a_text_is_known_or_is_not() {
        let of = |text: &str| TextLanguage::of(&prose_of(text)).map(|language| language.to_string());
        for (text, expected) in [
            (GERMAN, Some("German")),
            (ENGLISH, Some("English")),
            (RUSSIAN, Some("Russian")),
            (JAPANESE, Some("Japanese")),
            ("positive", None),
            ("12 + 30", None),
            ("", None),
        ] {
            assert_eq!(of(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn code_and_labels_are_no_prose() {
        let code = format!("{GERMAN}\n```python\n{}\n```\nhttps://example.com/the/english/words", ENGLISH.repeat(9));
        assert_eq!(other_language(&prose_of(&code), &languages(&["de"])), None);
        let labels = json!({"label": "very positive", "tags": ["delay", "construction works"], "text": GERMAN});
        assert_eq!(other_language(&prose_of_json(&labels), &languages(&["de"])), None);
        let text = json!([{"label": "sehr gut", "why": [ENGLISH]}]);
        assert!(other_language(&prose_of_json(&text), &languages(&["de"])).is_some());
        assert!(other_script(&prose_of_json(&json!({"a": CHINESE})), &scripts(&["latin"])).is_some());
    }

    #[test]
    fn of_a_long_text_the_beginning_tells() {
        let long = format!("{}{}", GERMAN.repeat(9_000), RUSSIAN.repeat(90_000));
        assert!(prose_of(&long).len() <= 5 * MOST_PROSE);
        assert_eq!(other_language(&prose_of(&long), &languages(&["de"])), None);
        let texts: Vec<&str> = std::iter::repeat_n(GERMAN, 90_000).collect();
        assert!(prose_of_json(&json!(texts)).len() <= MOST_PROSE + GERMAN.len() + 2);
    }

    #[test]
    fn code_formulas_and_mixed_texts_are_no_clear_case() {
        let python = "def area(radius):\n    return 3.14 * radius ** 2\n\nfor item in values:\n    print(area(item))\n\
                      result = [area(value) for value in range(10)]\n";
        let sql = "SELECT customers.name, count(*) AS orders FROM customers JOIN orders ON orders.customer = \
                   customers.id WHERE orders.placed > now() GROUP BY customers.name ORDER BY orders DESC;";
        let latex = "\\frac{\\partial u}{\\partial t} = \\alpha \\left( \\frac{\\partial^2 u}{\\partial x^2} \\right)";
        let quoting = format!("{GERMAN} Im Vertrag steht dazu: “{ENGLISH}” Das gilt auch für den Anschlusszug.");
        for text in [python.repeat(3), sql.to_owned(), latex.repeat(4), quoting] {
            assert_eq!(other_language(&prose_of(&text), &languages(&["de"])), None, "{text}");
        }
        assert!(other_language(&prose_of(ENGLISH), &languages(&["de"])).is_some());
    }

    #[test]
    fn chinese_is_not_japanese() {
        let long = CHINESE.repeat(2);
        assert!(other_language(&long, &languages(&["ja"])).unwrap().contains("Chinese"));
        assert!(other_script(&long, &scripts(&["japanese"])).unwrap().contains("Chinese"));
        for text in [JAPANESE, "東京都千代田区"] {
            assert_eq!(other_language(text, &languages(&["ja"])), None);
        }
        assert_eq!(other_language(&long, &languages(&["ja", "zh"])), None);
        assert_eq!(TextLanguage::parse("de-AT"), TextLanguage::parse("de"));
        assert!(TextLanguage::codes().any(|code| code == "ja") && TextLanguage::parse("sw").is_err());
    }

    #[test]
    fn near_languages_are_not_told_apart() {
        for (code, found) in [("hr", Lang::Srp), ("no", Lang::Dan), ("sk", Lang::Ces)] {
            assert!(TextLanguage::parse(code).unwrap().takes(found), "{code}");
        }
        assert!(!TextLanguage::parse("de").unwrap().takes(Lang::Nld));
    }

    #[test]
    fn a_drift_into_another_script_is_told_and_a_quotation_is_not() {
        let drifted = format!("{GERMAN}\n{CHINESE}\n{CHINESE}\n{CHINESE}\n");
        let told = other_script(&drifted, &scripts(&["latin"]));
        assert_eq!(told.as_deref(), Some("it is in Mandarin letters, and latin is asked for"));
        let quoted = format!("{GERMAN}\n{ENGLISH}\nOn the sign: {CHINESE}\n{ENGLISH}\n");
        assert_eq!(other_script(&quoted, &scripts(&["latin"])), None);
        assert_eq!(other_script(JAPANESE, &scripts(&["japanese"])), None);
        assert_eq!(other_script(&drifted, &scripts(&["latin", "han"])), None);
        assert_eq!(other_script("12 + 30 = 42", &scripts(&["han"])), None);
    }

    #[test]
    fn every_language_has_a_code_and_every_script_a_name() {
        for lang in Lang::all() {
            assert_eq!(TextLanguage::parse(lang.code()), Ok(TextLanguage(*lang)));
        }
        for (two, lang) in TWO_LETTERS {
            assert_eq!(TextLanguage::parse(two), Ok(TextLanguage(*lang)), "{two}");
        }
        for script in Script::all() {
            assert!(SCRIPTS.iter().any(|(_, of)| of.contains(script)), "{script:?}");
        }
        assert_eq!(TextLanguage::parse("german"), Err("\"german\" is no language that is told".to_owned()));
        assert_eq!(TextScript::parse("runes"), Err("\"runes\" is no script that is told".to_owned()));
    }
}
