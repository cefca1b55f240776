//! What a chart is drawn from: all samples of a measurement, or results that follow from others.

use crate::kinds::Measured;
use engine::options::{OptionType, Parser, Walk};
use engine::schema::Schema;
use engine::step::{Grade, Sample, StepContext, StepError, Verdict};
use engine::types::{Artifact, Samples};
use engine::value::{Kind, Value};

/// Samples, or a list of results.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// All samples of a measurement.
    Samples(Samples<Measured>),
    /// Results of steps that measure nothing, such as `analyze.cost`.
    Results(Vec<Artifact<Measured>>),
}

impl Data {
    /// The samples. A result counts as a valid sample without axes: it says itself what it rests on.
    pub(super) fn samples(&self, context: &StepContext) -> Result<Vec<Sample>, StepError> {
        let results = match self {
            Data::Samples(samples) => return Ok(context.samples(samples)),
            Data::Results(results) => results,
        };
        let sample = |(index, result): (u32, &Artifact<Measured>)| {
            let path = context.path(result)?;
            Ok(Sample {
                node: path.display().to_string(),
                axes: Vec::new(),
                index,
                verdict: Verdict {
                    grade: Grade::Valid,
                    reasons: Vec::new(),
                },
                drawn_at: 0,
                outputs: [("result".to_owned(), path)].into(),
            })
        };
        (0..).zip(results).map(sample).collect()
    }
}

impl OptionType for Data {
    fn type_name() -> String {
        format!(
            "{} | {}",
            Samples::<Measured>::type_name(),
            Vec::<Artifact<Measured>>::type_name()
        )
    }

    fn schema() -> Schema {
        let (all, list) = (
            Samples::<Measured>::schema(),
            Vec::<Artifact<Measured>>::schema(),
        );
        serde_json::json!({ "anyOf": [all, list] })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match &value.kind {
            Kind::List(_) => Vec::parse(value, parser).map(Self::Results),
            _ => Samples::parse(value, parser).map(Self::Samples),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        match self {
            Data::Samples(samples) => samples.walk(path, walk),
            Data::Results(results) => results.walk(path, walk),
        }
    }
}
