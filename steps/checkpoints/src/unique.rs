//! Objects of JSON in which every name stands once.
//!
//! Readers differ in what they make of a name that stands twice: the first, the last, or neither. A
//! checkpoint in which one does is another one for each of them, so it is refused.

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// An object by its names.
pub(crate) struct Unique<V>(pub(crate) BTreeMap<String, V>);

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = Unique<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if all.contains_key(&name) {
                return Err(repeated(&name));
            }
            let value = map.next_value()?;
            all.insert(name, value);
        }
        Ok(Unique(all))
    }
}

/// Says that a name stands twice; the reader of JSON adds where.
pub(crate) fn repeated<E: de::Error>(name: &str) -> E {
    E::custom(format_args!(
        "`{name}` stands there twice (keep the one that is meant, or save the checkpoint anew)"
    ))
}
