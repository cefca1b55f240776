//! How numbers are written: for people, and exactly, infinities included, for JSON.

/// Writes a number for people: four significant digits, thousands separated by commas.
///
/// Integers up to 10^15 are written in full; `∞`, `−∞` and `–` (not a number) stand for what
/// has no digits.
///
/// ```
/// assert_eq!(charts::format_number(1234.567), "1,235");
/// assert_eq!(charts::format_number(0.012345), "0.01235");
/// ```
pub fn format_number(value: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "−∞" }.to_owned();
    }
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e15).contains(&size) {
        return tidy_exponent(&format!("{value:.3e}"));
    }
    let text = if size.fract() == 0.0 {
        format!("{size:.0}")
    } else {
        // The exponent of the leading digit, between -4 and 14 here.
        let decimals = (3 - size.log10().floor() as i32).clamp(0, 8) as usize;
        trim_zeros(&format!("{size:.decimals$}"))
    };
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{}", group_thousands(&text))
}

/// Writes a number with so many decimals, thousands separated by commas: for numbers that stand
/// in one table. Zero has no sign.
pub(crate) fn format_fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let is_zero = text.bytes().all(|b| matches!(b, b'0' | b'.'));
    let sign = if value < 0.0 && !is_zero { "−" } else { "" };
    format!("{sign}{}", group_thousands(&text))
}

/// Drops zeros after the last significant decimal.
fn trim_zeros(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

/// `1.500e-7` becomes `1.5e-7`.
fn tidy_exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, exponent)) => format!("{}e{exponent}", trim_zeros(digits)).replace('-', "−"),
        None => text.to_owned(),
    }
}

/// Puts a comma before every third digit of the whole part.
fn group_thousands(text: &str) -> String {
    let (whole, rest) = match text.find('.') {
        Some(dot) => text.split_at(dot),
        None => (text, ""),
    };
    let mut grouped = String::with_capacity(text.len() + 4);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped.push_str(rest);
    grouped
}

/// The JSON form of a number: itself when finite, else the word `inf`, `-inf` or `nan`,
/// because JSON has no spelling of its own for them and `null` would lose which it was.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Spelled {
    Number(f64),
    Word(String),
}

impl Spelled {
    fn of(value: f64) -> Self {
        if value.is_finite() {
            Spelled::Number(value)
        } else if value.is_nan() {
            Spelled::Word("nan".to_owned())
        } else if value > 0.0 {
            Spelled::Word("inf".to_owned())
        } else {
            Spelled::Word("-inf".to_owned())
        }
    }

    fn value<E: serde::de::Error>(self) -> Result<f64, E> {
        match self {
            Spelled::Number(value) => Ok(value),
            Spelled::Word(word) => match word.as_str() {
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                "nan" => Ok(f64::NAN),
                _ => Err(E::custom(format!(
                    "found `{word}`, expected a number, `inf`, `-inf` or `nan`"
                ))),
            },
        }
    }
}

/// `#[serde(with)]` for a number that may be infinite.
pub(crate) mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Spelled;

    pub(crate) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        Spelled::of(*value).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Spelled::deserialize(from)?.value()
    }
}

/// `#[serde(with)]` for a number that may be infinite or absent (`null`).
pub(crate) mod exact_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Spelled;

    pub(crate) fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        value.filter(|v| !v.is_nan()).map(Spelled::of).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        Option::<Spelled>::deserialize(from)?
            .map(Spelled::value)
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (20.0, "20"),
            (12.5, "12.5"),
            (12.3456, "12.35"),
            (999.96, "1,000"),
            (1234.567, "1,235"),
            (1_000_000.0, "1,000,000"),
            (-1500.0, "−1,500"),
            (0.00012346, "0.0001235"),
            (1.5e-7, "1.5e−7"),
            (2.0e18, "2e18"),
            (f64::INFINITY, "∞"),
            (f64::NEG_INFINITY, "−∞"),
            (f64::NAN, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(format_number(value), text);
        }
    }

    #[test]
    fn numbers_of_one_table_have_equally_many_decimals() {
        assert_eq!(format_fixed(0.1, 3), "0.100");
        assert_eq!(format_fixed(-1234.5, 1), "−1,234.5");
        assert_eq!(format_fixed(-0.0004, 3), "0.000");
        assert_eq!(format_fixed(12.0, 0), "12");
    }

    #[test]
    fn a_wrong_word_is_named() {
        let wrong = Spelled::Word("lots".to_owned()).value::<serde_json::Error>();
        assert!(wrong.unwrap_err().to_string().contains("`lots`"));
    }
}
