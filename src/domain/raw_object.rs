//! JSON objects whose members are moved about without being read: order, digits and letters stay as they were written.

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use std::borrow::Cow;
use std::fmt;

/// The members of an object in their order, each value as it was written.
#[derive(Debug, Default)]
pub struct RawObject<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> RawObject<'a> {
    /// Reads the outermost level of a text; `None` when it is no object.
    #[must_use]
    pub fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The text of a member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.get())
    }

    /// The text of a member that is not null.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| *value != "null")
    }

    /// Puts a value in the place of a member, or at the end.
    pub fn set(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        let value = to_raw_value(value).expect("strings, numbers and JSON values always serialize");
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some((_, place)) => *place = Cow::Owned(value),
            None => self.0.push((Cow::Owned(name.to_owned()), Cow::Owned(value))),
        }
    }

    /// As [`Self::set`], at the beginning when it is new.
    pub fn set_first(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        let is_new = self.get(name).is_none();
        self.set(name, value);
        if is_new {
            self.0.rotate_right(1);
        }
    }

    /// Takes a member out; returns whether it was there and not null.
    pub fn remove(&mut self, name: &str) -> bool {
        let was_given = self.given(name).is_some();
        self.0.retain(|(own, _)| own != name);
        was_given
    }

    /// Takes a member out and returns its text, even if that is `null`.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(own, _)| own == name)?;
        let (_, value) = self.0.remove(place);
        Some(value.get().to_owned())
    }

    /// As [`Self::set`], from a text of JSON; a text that is not JSON is left out.
    pub fn set_text(&mut self, name: &str, text: &str) {
        if let Ok(value) = RawValue::from_string(text.to_owned()) {
            self.set(name, &value);
        }
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The whole object as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("raw members always serialize")
    }

    /// Takes out a member by its path, such as `messages[].name`; returns whether it was there and not null.
    pub fn remove_at(&mut self, path: &str) -> bool {
        let Some((parent, name)) = path.rsplit_once('.') else { return self.remove(path) };
        let mut was_given = false;
        self.edit_at(parent, &mut |object| {
            let is_there = object.get(name).is_some();
            was_given |= object.remove(name);
            is_there
        });
        was_given
    }

    /// Gives a member another name; returns whether it was there and not null. A member that has that name already
    /// stays.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        if self.given(to).is_some() {
            return self.remove(from);
        }
        let was_given = self.given(from).is_some();
        self.0.retain(|(own, _)| own != to);
        if let Some((own, _)) = self.0.iter_mut().find(|(own, _)| own == from) {
            *own = Cow::Owned(to.to_owned());
        }
        was_given
    }

    /// The names of the members that are not null.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| value.get() != "null").map(|(name, _)| name.as_ref())
    }

    /// All members: their names and texts.
    pub fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.get()))
    }

    /// Keeps the members that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.0.retain(|(name, value)| keep(name, value.get()));
    }

    /// Applies `edit` to every object at a path such as `messages[].tool_calls[].function`; returns whether any was
    /// changed, as reported by `edit`. Values there that are not objects are left alone.
    pub fn edit_at(&mut self, path: &str, edit: &mut dyn FnMut(&mut RawObject<'_>) -> bool) -> bool {
        let (step, rest) = match path.split_once('.') {
            Some((step, rest)) => (step, Some(rest)),
            None => (path, None),
        };
        let (name, is_list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        let Some(value) = self.get(name) else { return false };
        let edited = if is_list { edit_items(value, rest, edit) } else { edit_object(value, rest, edit) };
        match edited {
            Some(edited) => {
                self.set(name, &edited);
                true
            }
            None => false,
        }
    }
}

/// The object's new text, if it was changed.
fn edit_object(
    text: &str,
    path: Option<&str>,
    edit: &mut dyn FnMut(&mut RawObject<'_>) -> bool,
) -> Option<Box<RawValue>> {
    let mut object = RawObject::read(text)?;
    let is_changed = match path {
        Some(path) => object.edit_at(path, edit),
        None => edit(&mut object),
    };
    is_changed.then(|| to_raw_value(&object).expect("raw members always serialize"))
}

/// The list's new text, if an item was changed.
fn edit_items(
    text: &str,
    path: Option<&str>,
    edit: &mut dyn FnMut(&mut RawObject<'_>) -> bool,
) -> Option<Box<RawValue>> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let mut is_changed = false;
    let items: Vec<Cow<'_, RawValue>> = items
        .into_iter()
        .map(|item| match edit_object(item.get(), path, edit) {
            Some(edited) => {
                is_changed = true;
                Cow::Owned(edited)
            }
            None => Cow::Borrowed(item),
        })
        .collect();
    is_changed.then(|| to_raw_value(&items).expect("raw items always serialize"))
}

impl Serialize for RawObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = RawObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'de, str>, Cow<'de, RawValue>)> = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    let value = Cow::Borrowed(map.next_value::<&'de RawValue>()?);
                    // Of two members of the same name the last counts, as in every other reader here.
                    match members.iter_mut().find(|(own, _)| *own == name) {
                        Some((_, place)) => *place = value,
                        None => members.push((name, value)),
                    }
                }
                Ok(RawObject(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// A member's name, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, edit: impl FnOnce(&mut RawObject<'_>)) -> String {
        let mut object = RawObject::read(text).unwrap();
        edit(&mut object);
        serde_json::to_string(&object).unwrap()
    }

    #[test]
    fn what_is_not_touched_stays_as_it_was_written() {
        let text = r#"{"z":1.0,"a":12345678901234567890123,"é\n":[ 1e2 , {"b" : "\u00e9"}],"y":-0.0}"#;
        let same = r#"{"z":1.0,"a":12345678901234567890123,"é\n":[ 1e2 , {"b" : "\u00e9"}],"y":-0.0}"#;
        assert_eq!(edited(text, |_| ()), same);
        let renamed = same.replace("\"a\"", "\"model\"");
        assert_eq!(edited(text, |object| assert!(object.rename("a", "model"))), renamed);
        assert_eq!(edited(text, |object| object.set("z", "x")), same.replace("1.0", "\"x\""));
        assert_eq!(edited(r#"{"a":1}"#, |object| object.set_first("model", "m")), r#"{"model":"m","a":1}"#);
    }

    #[test]
    fn objects_are_found_by_their_path() {
        let text = r#"{"m":[{"c":[{"f":{"n":"a"}},3]},7,{"c":"text"},{"c":[{"f":{"n":"b"}}]}]}"#;
        let mut seen = Vec::new();
        let edited = edited(text, |object| {
            let found = object.edit_at("m[].c[].f", &mut |function| {
                seen.push(function.get("n").unwrap_or_default().to_owned());
                function.get("n") == Some("\"b\"") && function.remove("n")
            });
            assert!(found);
            assert!(!object.edit_at("m[].none", &mut |_| true));
        });
        assert_eq!(seen, ["\"a\"", "\"b\""]);
        assert_eq!(edited, r#"{"m":[{"c":[{"f":{"n":"a"}},3]},7,{"c":"text"},{"c":[{"f":{}}]}]}"#);
    }

    #[test]
    fn the_last_of_two_equal_names_counts() {
        assert_eq!(edited(r#"{"model":"a","x":1,"mod\u0065l":"b"}"#, |_| ()), r#"{"model":"b","x":1}"#);
        assert_eq!(edited(r#"{"a":1,"b":2}"#, |object| assert!(object.rename("a", "b"))), r#"{"b":2}"#);
        assert_eq!(edited(r#"{"a":1,"b":null}"#, |object| assert!(object.rename("a", "b"))), r#"{"b":1}"#);
        assert_eq!(edited(r#"{"a":null}"#, |object| assert!(!object.remove("a"))), "{}");
    }
}
