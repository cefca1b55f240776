//! What a measurement's loads were like over time, where their servers or GPUs were read.

use super::sections::Data;
use crate::load::telemetry::Telemetry;
use crate::plot::{LOADS, telemetry_chart, telemetry_of};
use charts::Section;
use engine::step::{Sample, StepError};

/// A section with a chart for each measurement whose servers or GPUs were read; `None` if there is none.
pub(super) fn during_section(data: &[Data]) -> Result<Option<Section>, StepError> {
    let words = "The client's requests and tokens beside what the server told of itself, on the client's clock. Counts are as the server tells them: some count a request's tokens when it has ended, and renew what runs only every few steps.";
    let mut section = Section::new("During the loads").paragraph(words);
    let mut is_empty = true;
    for data in data {
        let samples = data.most_believable();
        if samples.len() > LOADS {
            if samples
                .iter()
                .any(|sample| sample.outputs.contains_key("telemetry"))
            {
                let name = data.name();
                let words = format!(
                    "{name}: more than {LOADS} loads have no chart together; `plot.telemetry` draws those that its `at` names."
                );
                (section, is_empty) = (section.paragraph(words), false);
            }
            continue;
        }
        let all: Vec<(&Sample, Telemetry)> = samples
            .into_iter()
            .map(|sample| Ok((sample, telemetry_of(sample)?)))
            .collect::<Result<_, StepError>>()?;
        let is_read = |(_, t): &&(&Sample, Telemetry)| !t.scrapes.is_empty() || !t.gpus.is_empty();
        let loads: Vec<(&Sample, &Telemetry)> =
            all.iter().filter(is_read).map(|(s, t)| (*s, t)).collect();
        if loads.is_empty() {
            continue;
        }
        let heading = format!("{}: client, server and GPUs over time", data.name());
        (section, is_empty) = (section.chart(telemetry_chart(heading, &loads)?), false);
    }
    Ok((!is_empty).then_some(section))
}
