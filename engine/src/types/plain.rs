//! Options that are one plain value: numbers with their limits, booleans, strings.

use crate::options::{OptionType, Parser, Walk};
use crate::schema::{Schema, or_reference};
use crate::value::{Kind, Value};
use serde_json::json;
use std::num::{NonZeroU32, NonZeroU64};

/// A number greater than zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Positive(pub f64);

impl OptionType for Positive {
    fn type_name() -> String {
        "float > 0".to_owned()
    }

    fn schema() -> Schema {
        or_reference(json!({ "type": "number", "exclusiveMinimum": 0 }))
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let number = f64::parse(value, parser)?;
        if number > 0.0 && number.is_finite() {
            return Some(Self(number));
        }
        parser.wrong(
            &value.place,
            format!("expected a number greater than 0, found {number}"),
            "out of range",
            "write a number above 0",
        )
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        self.0.walk(path, walk);
    }
}

/// Writes a number so that equal values have equal text: `4.0` and `4` are both `4`.
pub fn number_text(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        format!("{number:.0}")
    } else {
        format!("{number:?}")
    }
}

impl OptionType for bool {
    fn type_name() -> String {
        "bool".to_owned()
    }

    fn schema() -> Schema {
        or_reference(json!({ "type": "boolean" }))
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match value.kind {
            Kind::Bool(b) => Some(b),
            _ => parser.mismatch(value, "`true` or `false`"),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, if *self { "true" } else { "false" });
    }
}

impl OptionType for f64 {
    fn type_name() -> String {
        "float".to_owned()
    }

    fn schema() -> Schema {
        or_reference(json!({ "type": "number" }))
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match value.kind {
            Kind::Float(f) => Some(f),
            #[expect(
                clippy::cast_precision_loss,
                reason = "numbers in plans are far below 2^53"
            )]
            Kind::Int(i) => Some(i as f64),
            _ => parser.mismatch(value, "a number"),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, &number_text(*self));
    }
}

/// Describes a whole number; limits that TOML's own 64 bits already draw are left out.
fn integer(min: i128, max: i128) -> Schema {
    let mut schema = json!({ "type": "integer" });
    if let Some(min) = i64::try_from(min).ok().filter(|min| *min != i64::MIN) {
        schema["minimum"] = min.into();
    }
    if let Some(max) = i64::try_from(max).ok().filter(|max| *max != i64::MAX) {
        schema["maximum"] = max.into();
    }
    or_reference(schema)
}

macro_rules! integer_option {
    ($($ty:ty, $name:literal, $expected:literal;)+) => { $(
        impl OptionType for $ty {
            fn type_name() -> String {
                $name.to_owned()
            }

            fn schema() -> Schema {
                integer(<$ty>::MIN.into(), <$ty>::MAX.into())
            }

            fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
                let Kind::Int(i) = value.kind else { return parser.mismatch(value, $expected) };
                match <$ty>::try_from(i) {
                    Ok(n) => Some(n),
                    Err(_) => parser.wrong(&value.place, format!(concat!("expected ", $expected, ", found {}"), i),
                        "out of range", concat!("write ", $expected)),
                }
            }

            fn walk(&self, path: &str, walk: &mut dyn Walk) {
                walk.value(path, &self.to_string());
            }
        }
    )+ };
}

integer_option! {
    u16, "int", "an integer from 0 to 65535";
    u32, "int", "an integer from 0 to 4294967295";
    u64, "int", "an integer from 0 upwards";
    i64, "int", "an integer";
}

macro_rules! non_zero_option {
    ($($ty:ty, $plain:ty;)+) => { $(
        impl OptionType for $ty {
            fn type_name() -> String {
                "int >= 1".to_owned()
            }

            fn schema() -> Schema {
                integer(1, <$ty>::MAX.get().into())
            }

            fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
                let Kind::Int(i) = value.kind else { return parser.mismatch(value, "an integer from 1 upwards") };
                match <$plain>::try_from(i).ok().and_then(<$ty>::new) {
                    Some(n) => Some(n),
                    None => parser.wrong(&value.place, format!("expected an integer from 1 upwards, found {i}"),
                        "out of range", "write a number from 1 upwards"),
                }
            }

            fn walk(&self, path: &str, walk: &mut dyn Walk) {
                walk.value(path, &self.to_string());
            }
        }
    )+ };
}

non_zero_option! {
    NonZeroU32, u32;
    NonZeroU64, u64;
}

impl OptionType for String {
    fn type_name() -> String {
        "string".to_owned()
    }

    fn schema() -> Schema {
        json!({ "type": "string" })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match &value.kind {
            Kind::Text(t) => Some(t.clone()),
            _ => parser.mismatch(value, "a string"),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_have_equal_text() {
        assert_eq!(number_text(4.0), "4");
        assert_eq!(number_text(0.5), "0.5");
    }
}
