//! An axis with its range and ticks decided.

use crate::model::Scale;
use crate::number::format_number;
use crate::ticks;

/// How many ticks an axis aims for.
const TICKS: usize = 6;
/// How many an axis aims for that lies along a whole page.
const STRETCH_TICKS: usize = 10;

/// An axis ready to be drawn.
#[derive(Clone, Debug)]
pub(crate) struct Ruler {
    /// Label and unit.
    pub(crate) caption: String,
    pub(crate) scale: Scale,
    /// Both ends; positive if the scale is logarithmic, the first always below the second.
    pub(crate) range: (f64, f64),
    pub(crate) ticks: Vec<Tick>,
    pub(crate) labels: Labels,
}

/// What the ticks of an axis are. Only those of plain numbers may be chosen anew when an
/// interactive renderer zooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Labels {
    Numbers,
    /// Numbers, and a last place for infinity.
    NumbersAndInfinity,
    Categories,
}

/// A place on an axis and what is written there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) at: f64,
    pub(crate) text: String,
}

impl Tick {
    fn number(at: f64) -> Self {
        Self {
            at,
            text: format_number(at),
        }
    }
}

impl Ruler {
    /// A value axis that shows all of `values`; the infinite and, on a logarithmic scale, the
    /// non-positive ones among them have no say.
    pub(crate) fn of_values(
        caption: String,
        scale: Scale,
        values: impl Iterator<Item = f64>,
        zero: Zero,
    ) -> Self {
        let range = match (extent(scale, values), scale) {
            (None, Scale::Linear) => (0.0, 1.0),
            (None, Scale::Log) => (1.0, 10.0),
            (Some((low, high)), Scale::Log) => ticks::widen_log(low, high),
            (Some((low, high)), Scale::Linear) => linear_range(low, high, zero),
        };
        Self {
            caption,
            scale,
            range,
            ticks: numbered(scale, range),
            labels: Labels::Numbers,
        }
    }

    /// An axis that points are placed along, with room beside the outermost and, if one of
    /// `values` is infinite, a last tick for it.
    pub(crate) fn of_places(caption: String, scale: Scale, values: &[f64]) -> Self {
        let extent = extent(scale, values.iter().copied());
        let (low, high) = match (extent, scale) {
            (None, Scale::Linear) => (0.0, 1.0),
            (None, Scale::Log) => (1.0, 10.0),
            (Some((low, high)), _) if high > low => (low, high),
            (Some((only, _)), Scale::Log) => (only / 2.0, only * 2.0),
            (Some((only, _)), Scale::Linear) => {
                let room = if only == 0.0 { 1.0 } else { only.abs() * 0.5 };
                (only - room, only + room)
            }
        };
        let along = |share: f64| along(scale, (low, high), share);
        let padded = (along(-0.04), along(1.04));
        let mut ticks = match extent {
            None => Vec::new(),
            Some(_) => measured(scale, padded, values).unwrap_or_else(|| numbered(scale, padded)),
        };
        if !values.contains(&f64::INFINITY) {
            return Self {
                caption,
                scale,
                range: padded,
                ticks,
                labels: Labels::Numbers,
            };
        }
        ticks.retain(|tick| tick.at <= along(1.001));
        ticks.push(Tick {
            at: along(1.16),
            text: "∞".to_owned(),
        });
        Self {
            caption,
            scale,
            range: (padded.0, along(1.22)),
            ticks,
            labels: Labels::NumbersAndInfinity,
        }
    }

    /// A linear axis that begins and ends with its values, such as one of time; with zero if they
    /// begin shortly after it.
    pub(crate) fn of_stretch(caption: String, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extent(Scale::Linear, values).unwrap_or((0.0, 1.0));
        let is_near = low > 0.0 && low < 0.1 * (high - low);
        let low = if is_near { 0.0 } else { low };
        let range = (low, if high > low { high } else { low + 1.0 });
        Self {
            caption,
            scale: Scale::Linear,
            range,
            ticks: ticks::linear(range.0, range.1, STRETCH_TICKS)
                .into_iter()
                .map(Tick::number)
                .collect(),
            labels: Labels::Numbers,
        }
    }

    /// A linear value axis that reaches as far below zero as above.
    pub(crate) fn around_zero(caption: String, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extent(Scale::Linear, values).unwrap_or((0.0, 0.0));
        let most = low.abs().max(high.abs());
        let most = if most == 0.0 { 1.0 } else { most };
        Self::of_values(
            caption,
            Scale::Linear,
            [-most, most].into_iter(),
            Zero::Shown,
        )
    }

    /// An axis of categories, the n-th at `n`.
    pub(crate) fn of_categories(caption: String, categories: &[String]) -> Self {
        let tick = |(i, name): (usize, &String)| Tick {
            at: i as f64,
            text: name.clone(),
        };
        let end = categories.len().max(1) as f64 - 0.5;
        Self {
            caption,
            scale: Scale::Linear,
            range: (-0.5, end),
            ticks: categories.iter().enumerate().map(tick).collect(),
            labels: Labels::Categories,
        }
    }

    /// Where on this axis `x` is placed; infinity at its own tick. `None` if there is no place.
    pub(crate) fn place(&self, x: f64) -> Option<f64> {
        if x == f64::INFINITY {
            let has_place = self.labels == Labels::NumbersAndInfinity;
            return self.ticks.last().filter(|_| has_place).map(|tick| tick.at);
        }
        self.holds(x).then_some(x)
    }

    /// Whether the scale has a place for the value.
    pub(crate) fn holds(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    /// Cuts a value to the range. What a logarithmic scale cannot hold is cut to its low end.
    pub(crate) fn cut(&self, value: f64) -> f64 {
        value.clamp(self.range.0, self.range.1)
    }

    /// How far along the axis a value is: 0 at the low end, 1 at the high end.
    pub(crate) fn share(&self, value: f64) -> f64 {
        share(self.scale, self.range, value)
    }
}

/// How far along a range a value is: the inverse of [`along`].
fn share(scale: Scale, (low, high): (f64, f64), value: f64) -> f64 {
    match scale {
        Scale::Linear => (value - low) / (high - low),
        Scale::Log => (value / low).ln() / (high / low).ln(),
    }
}

/// Whether an axis must show zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zero {
    /// Always: bars would lie about proportions without it.
    Shown,
    /// Unless the values are close together and far from it.
    IfNear,
}

/// The range of a linear value axis.
fn linear_range(low: f64, high: f64, zero: Zero) -> (f64, f64) {
    let near = low >= 0.0 && low < 0.6 * high || high <= 0.0 && high > 0.6 * low;
    let (mut low, mut high) = match zero {
        Zero::Shown => (low.min(0.0), high.max(0.0)),
        Zero::IfNear if near => (low.min(0.0), high.max(0.0)),
        Zero::IfNear => (low, high),
    };
    if low == high {
        let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        (low, high) = (low - if low == 0.0 { 0.0 } else { room }, high + room);
    }
    ticks::widen_linear(low, high, TICKS)
}

/// The point that lies `share` of the way from one end of a range to the other.
fn along(scale: Scale, (low, high): (f64, f64), share: f64) -> f64 {
    match scale {
        Scale::Linear => low + share * (high - low),
        Scale::Log => low * (high / low).powf(share),
    }
}

/// Smallest and largest of the values that the scale can hold.
fn extent(scale: Scale, values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|v| v.is_finite() && (scale == Scale::Linear || *v > 0.0))
        .fold(None, |seen, v| match seen {
            None => Some((v, v)),
            Some((low, high)) => Some((v.min(low), v.max(high))),
        })
}

/// Ticks at the very places where something was measured, if there is room for them all:
/// a sweep over 1, 4 and 16 is best read at 1, 4 and 16.
fn measured(scale: Scale, range: (f64, f64), values: &[f64]) -> Option<Vec<Tick>> {
    /// Share of the axis that a label needs.
    const ROOM: f64 = 0.055;
    let held = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
    let mut places: Vec<f64> = values.iter().copied().filter(held).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let apart = places
        .windows(2)
        .all(|pair| share(scale, range, pair[1]) - share(scale, range, pair[0]) >= ROOM);
    let short = places
        .iter()
        .all(|v| format_number(*v).chars().count() <= 6);
    (apart && short).then(|| places.into_iter().map(Tick::number).collect())
}

fn numbered(scale: Scale, (low, high): (f64, f64)) -> Vec<Tick> {
    let places = match scale {
        Scale::Linear => ticks::linear(low, high, TICKS),
        Scale::Log => ticks::log(low, high, TICKS),
    };
    places.into_iter().map(Tick::number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(scale: Scale, values: &[f64], zero: Zero) -> (f64, f64) {
        Ruler::of_values(String::new(), scale, values.iter().copied(), zero).range
    }

    #[test]
    fn zero_is_shown_when_it_is_near_or_must_be() {
        assert_eq!(
            values(Scale::Linear, &[10.0, 93.0], Zero::IfNear),
            (0.0, 100.0)
        );
        let close = values(Scale::Linear, &[990.0, 1000.0], Zero::IfNear);
        assert!(close.0 > 900.0 && close.0 <= 990.0);
        assert_eq!(values(Scale::Linear, &[990.0, 1000.0], Zero::Shown).0, 0.0);
        assert_eq!(values(Scale::Linear, &[-5.0, -1.0], Zero::Shown).1, 0.0);
    }

    #[test]
    fn every_range_has_a_length() {
        let odd: [&[f64]; 5] = [
            &[],
            &[0.0],
            &[7.0],
            &[-7.0],
            &[f64::INFINITY, f64::NAN, f64::NEG_INFINITY],
        ];
        for scale in [Scale::Linear, Scale::Log] {
            for case in odd {
                let (low, high) = values(scale, case, Zero::IfNear);
                assert!(
                    low < high && low.is_finite() && high.is_finite(),
                    "{case:?}"
                );
                let (low, high) = Ruler::of_places(String::new(), scale, case).range;
                assert!(
                    low < high && low.is_finite() && high.is_finite(),
                    "{case:?}"
                );
            }
        }
    }

    #[test]
    fn an_axis_around_zero_is_even_and_one_of_time_has_no_room_to_spare() {
        let even = |values: &[f64]| Ruler::around_zero(String::new(), values.iter().copied()).range;
        assert_eq!(even(&[0.1, -0.35]), (-0.4, 0.4));
        for none in [&[][..], &[0.0], &[f64::INFINITY]] {
            let (low, high) = even(none);
            assert!(low == -high && high > 0.0, "{none:?}");
        }
        let stretch =
            |values: &[f64]| Ruler::of_stretch(String::new(), values.iter().copied()).range;
        assert_eq!(stretch(&[0.25, 59.75]), (0.0, 59.75));
        assert_eq!(stretch(&[40.0, 60.0]), (40.0, 60.0));
        assert_eq!(stretch(&[]), (0.0, 1.0));
        assert_eq!(stretch(&[3.0]), (3.0, 4.0));
    }

    #[test]
    fn a_sweep_is_labelled_where_it_was_measured() {
        let texts = |values: &[f64]| -> Vec<String> {
            let ruler = Ruler::of_places(String::new(), Scale::Log, values);
            ruler.ticks.into_iter().map(|tick| tick.text).collect()
        };
        assert_eq!(texts(&[16.0, 1.0, 4.0, 1.0]), ["1", "4", "16"]);
        assert_eq!(texts(&[1.0, 1.01, 10.0]), ["1", "2", "5", "10"]);
        assert_eq!(texts(&[3.0, f64::INFINITY]), ["3", "∞"]);
    }

    #[test]
    fn infinity_has_its_own_place_right_of_all_others() {
        let ruler = Ruler::of_places(String::new(), Scale::Log, &[1.0, 16.0, f64::INFINITY]);
        let place = ruler.place(f64::INFINITY).unwrap();
        assert!(place > 16.0 && place < ruler.range.1);
        assert_eq!(ruler.ticks.last().unwrap().text, "∞");
        assert_eq!(ruler.place(0.0), None);
        assert_eq!(ruler.place(f64::NAN), None);
    }

    #[test]
    fn shares_run_from_zero_to_one() {
        let ruler = Ruler::of_values(
            String::new(),
            Scale::Log,
            [1.0, 100.0].into_iter(),
            Zero::IfNear,
        );
        assert_eq!(ruler.range, (1.0, 100.0));
        assert!((ruler.share(10.0) - 0.5).abs() < 1e-12);
    }
}
