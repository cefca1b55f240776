//! `workload.shared_prefix`: groups of requests that begin with the same system prompt.

use super::prompts::{Drawn, PromptForm, Prompts};
use super::{OUTPUT, check_ratio, check_tokens, ideal_text, made, write};
use crate::kinds::Model;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Artifact, Positive};
use engine::value::Table;
use loadgen::{Prefixes, Request};
use std::num::NonZeroU32;

/// What parts a system prompt from a question where both are text.
const BLANK_LINE: &str = "\n\n";

engine::choices! {
    /// In which order requests stand.
    pub enum GroupOrder {
        /// All of a group behind each other.
        Grouped = "grouped",
        /// Any, by the seed.
        Shuffled = "shuffled",
    }
}

engine::options! {
    /// Options of `workload.shared_prefix`.
    pub struct WorkloadSharedPrefix {
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// Number of groups, each with a system prompt of its own.
        groups: NonZeroU32 = NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN), in "groups";
        /// Requests of each; their mean where `alpha` makes groups unequal.
        requests_per_group: NonZeroU32 = NonZeroU32::new(16).unwrap_or(NonZeroU32::MIN), in "requests";
        /// How unequal groups are: 1 is even, below 1 favours the first one. Of n groups the first i have the
        /// share (i / n)^alpha of all requests; a group whose part is less than a half has none.
        alpha: Positive = Positive(1.0);
        /// Length of a system prompt.
        system_tokens: NonZeroU32 = NonZeroU32::new(2048).unwrap_or(NonZeroU32::MIN), in "tokens";
        /// Length of a question; the blank line before it counts where it is text.
        question_tokens: NonZeroU32 = NonZeroU32::new(128).unwrap_or(NonZeroU32::MIN), in "tokens";
        /// Answer length to ask for.
        output_tokens: NonZeroU32 = NonZeroU32::new(256).unwrap_or(NonZeroU32::MIN), in "tokens";
        /// Lengths are drawn evenly from this share of the given length up to the length itself.
        range_ratio: f64 = 1.0;
        /// In which order requests stand.
        order: GroupOrder = GroupOrder::Shuffled;
        /// What prompts are sent as.
        prompt: PromptForm = PromptForm::Text;
        /// Starts the random numbers.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadSharedPrefix {
    const NAME: &'static str = "workload.shared_prefix";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str =
        "Makes groups of requests that begin with the same system prompt; records carry the group.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let each = u64::from(self.system_tokens.get()) + u64::from(self.question_tokens.get());
        let requests = u64::from(self.groups.get()) * u64::from(self.requests_per_group.get());
        let tokens = requests.saturating_mul(each);
        check_tokens(tokens, "groups", (table, place), parser);
        check_ratio(self.range_ratio, (table, place), parser);
    }
}

/// How many requests there are, and how long.
struct Shape {
    groups: NonZeroU32,
    requests_per_group: NonZeroU32,
    alpha: f64,
    system: NonZeroU32,
    question: NonZeroU32,
    output: NonZeroU32,
    range_ratio: f64,
    order: GroupOrder,
}

/// A request before its place is known.
struct Asked {
    group: u32,
    number: u32,
    drawn: Drawn,
    output: NonZeroU32,
}

impl WorkloadSharedPrefix {
    fn shape(&self) -> Shape {
        Shape {
            groups: self.groups,
            requests_per_group: self.requests_per_group,
            alpha: self.alpha.0,
            system: self.system_tokens,
            question: self.question_tokens,
            output: self.output_tokens,
            range_ratio: self.range_ratio,
            order: self.order,
        }
    }
}

impl Shape {
    /// The requests in their order.
    fn requests(
        &self,
        prompts: &mut Prompts,
        mut made: impl FnMut(u32) -> Result<(), StepError>,
    ) -> Result<Vec<Request>, StepError> {
        let mut all = Vec::new();
        for group in 0..self.groups.get() {
            made(group)?;
            let length = prompts.length(self.system, self.range_ratio);
            let system = prompts.draw(length)?;
            for number in 0..self.size(group) {
                all.push(self.ask(group, number, &system, prompts)?);
            }
        }
        if self.order == GroupOrder::Shuffled {
            prompts.shuffle(&mut all);
        }
        let mut seen = Prefixes::default();
        Ok(all
            .into_iter()
            .map(|asked| asked.request(&mut seen))
            .collect())
    }

    /// How many requests a group has.
    fn size(&self, group: u32) -> u32 {
        let groups = f64::from(self.groups.get());
        let all = groups * f64::from(self.requests_per_group.get());
        let of_first = |n: u32| (all * (f64::from(n) / groups).powf(self.alpha)).round();
        let size = of_first(group + 1) - of_first(group);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number between 0 and that of all requests"
        )]
        let size = size as u32;
        size
    }

    fn ask(
        &self,
        group: u32,
        number: u32,
        system: &Drawn,
        prompts: &mut Prompts,
    ) -> Result<Asked, StepError> {
        let question = prompts.length(self.question, self.range_ratio);
        Ok(Asked {
            group,
            number,
            drawn: prompts.draw_behind(system, BLANK_LINE, question)?,
            output: prompts.length(self.output, self.range_ratio),
        })
    }
}

impl Asked {
    fn request(self, seen: &mut Prefixes) -> Request {
        let tokens = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let Drawn { prompt, ids } = self.drawn;
        let (group, number) = (self.group, self.number);
        Request {
            group: Some(format!("group-{group}")),
            cacheable_tokens: Some(tokens(seen.add(&ids))),
            ..Request::new(
                format!("group-{group}-{number}"),
                prompt,
                tokens(ids.len()),
                self.output,
            )
        }
    }
}

#[async_trait::async_trait]
impl Step for WorkloadSharedPrefix {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let mut prompts = Prompts::new(&context.path(&self.model)?, self.prompt, self.seed)?;
        let groups = self.groups;
        let shape = self.shape();
        let n_groups = (0..groups.get()).filter(|group| shape.size(*group) > 0);
        let n_groups = n_groups.count();
        let requests = shape.requests(&mut prompts, |group| {
            made(context, "making groups", group, groups)
        })?;
        let workload = write(context, requests)?;
        Ok(StepReport::line(format!(
            "{} requests in {n_groups} groups{}",
            workload.requests().len(),
            ideal_text(&workload)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::super::prompts::of_words;
    use super::*;
    use loadgen::{Prompt, Workload};
    use std::collections::BTreeMap;

    fn n(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    fn made(order: GroupOrder, form: PromptForm, seed: u64) -> Workload {
        let shape = Shape {
            groups: n(6),
            requests_per_group: n(5),
            alpha: 1.0,
            system: n(200),
            question: n(30),
            output: n(8),
            range_ratio: 1.0,
            order,
        };
        let mut prompts = of_words(4000, form, seed);
        Workload::new(shape.requests(&mut prompts, |_| Ok(())).unwrap()).unwrap()
    }

    #[test]
    fn groups_are_as_unequal_as_they_are_told_to_be() {
        let shape = |alpha| Shape {
            groups: n(4),
            requests_per_group: n(25),
            alpha,
            system: n(1),
            question: n(1),
            output: n(1),
            range_ratio: 1.0,
            order: GroupOrder::Grouped,
        };
        let sizes = |alpha| -> Vec<u32> { (0..4).map(|group| shape(alpha).size(group)).collect() };
        assert_eq!(sizes(1.0), [25, 25, 25, 25]);
        // 0.25^0.5 is a half, 0.5^0.5 is 0.707, 0.75^0.5 is 0.866.
        assert_eq!(sizes(0.5), [50, 21, 16, 13]);
    }

    fn groups(workload: &Workload) -> Vec<&str> {
        let all = workload.requests().iter();
        all.filter_map(|r| r.group.as_deref()).collect()
    }

    #[test]
    fn every_request_but_a_groups_first_finds_its_system_prompt() {
        for form in [PromptForm::Text, PromptForm::Tokens] {
            let workload = made(GroupOrder::Shuffled, form, 1);
            assert!(workload.requests().iter().all(|r| r.input_tokens == 230));
            let mut found: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
            for request in workload.requests() {
                let of_group = found.entry(request.group.as_deref().unwrap()).or_default();
                of_group.extend(request.cacheable_tokens);
            }
            assert_eq!(found.len(), 6);
            for cacheable in found.values() {
                // Beyond that two prompts begin alike by chance alone.
                assert!(cacheable[0] < 3, "{cacheable:?}");
                assert!(
                    cacheable[1..].iter().all(|c| (200..203).contains(c)),
                    "{cacheable:?}"
                );
            }
            let ideal = workload.ideal_cache_hit_rate().unwrap();
            assert!(
                (ideal - 24.0 * 200.0 / (30.0 * 230.0)).abs() < 0.01,
                "{ideal}"
            );
        }
    }

    #[test]
    fn text_has_a_blank_line_before_the_question() {
        let workload = made(GroupOrder::Grouped, PromptForm::Text, 1);
        let Prompt::Text(text) = &workload.requests()[0].prompt else {
            panic!("text")
        };
        let (system, question) = text.split_once("\n\n").unwrap();
        let words = |text: &str| text.split_whitespace().count();
        assert_eq!((words(system), words(question)), (200, 30));
    }

    #[test]
    fn the_seed_shuffles_and_grouped_requests_stay_together() {
        let grouped = made(GroupOrder::Grouped, PromptForm::Tokens, 1);
        assert!(groups(&grouped).is_sorted());
        let shuffled = made(GroupOrder::Shuffled, PromptForm::Tokens, 1);
        assert_ne!(groups(&shuffled), groups(&grouped));
        let again = made(GroupOrder::Shuffled, PromptForm::Tokens, 1);
        assert_eq!(again.digest(), shuffled.digest());
        let other = made(GroupOrder::Shuffled, PromptForm::Tokens, 2);
        assert_ne!(groups(&other), groups(&shuffled));
    }
}
