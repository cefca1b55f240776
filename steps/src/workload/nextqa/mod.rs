//! `workload.nextqa`: questions about videos of NExT-QA, each shown as frames, by the rules of the
//! hierarchical cache's client.
//!
//! Which questions there are is in [`questions`], where a video lies in [`videos`], and how it becomes images
//! in [`frames`].

mod frames;
mod questions;
mod videos;

use super::python_random::PythonRandom;
use super::records::Damaged;
use super::talks::{Exchange, Image, Limits, Sample, Sampling, Talk};
use super::tokens::Counter;
use super::{ideal_text, made, tokens_text};
use crate::files;
use crate::kinds::Model;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Any, Artifact, Positive};
use frames::{Frames, Taken};
use loadgen::{Request, Workload};
use questions::{Question, Task};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinSet;
use videos::Videos;

/// Ids from here on stand for images while lengths are counted: no vocabulary is that large.
const FIRST_ID: u32 = 1 << 31;

engine::choices! {
    /// How the questions about a video are asked.
    pub enum VideoQuestions {
        /// Each by itself, behind the frames of its video, in an order that knows no videos: as the suite does.
        Single = "single",
        /// As a conversation: the first behind the frames, each later one behind the server's real answers.
        MultiTurn = "multi_turn",
        /// Each by itself, behind the frames: all about one video follow each other.
        SharedPrefix = "shared_prefix",
    }
}

engine::options! {
    /// Options of `workload.nextqa`.
    pub struct WorkloadNextqa {
        /// The data set: a folder with the questions as Parquet, CSV or JSON, and for each video either a file, named
        /// by its id, of which `ffmpeg` takes frames, or a folder of that name with frames as images. Or the file of
        /// questions, beside which these lie.
        source: Artifact<Any>;
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// Which questions: those of a folder or file `OE` or `MC`, of the split `test` where there are several.
        task: Task = Task::OpenEnded;
        /// How many: questions if asked `single`, else videos. Where fewer can be used, those are there again,
        /// and the step says so.
        conversations: NonZeroU32, in "conversations";
        /// How questions are asked.
        questions: VideoQuestions = VideoQuestions::Single;
        /// Questions of a conversation or about one video, at most; all if absent.
        most_questions: Option<NonZeroU32>, in "questions";
        /// Frames of a video, at most. They are spread evenly from its first frame to its last.
        frames: NonZeroU32 = NonZeroU32::new(16).unwrap_or(NonZeroU32::MIN), in "frames";
        /// Takes frames of a video file at this rate instead, from its beginning, and `frames` at most.
        frames_per_second: Option<Positive>, in "frames/s";
        /// Scales frames of video files so that the longer side has so many pixels; as they are if absent.
        size: Option<NonZeroU32>, in "pixels";
        /// Tokens that the server makes of each frame: 144 of LLaVA-NeXT-Video, whatever `image_tokens` says of
        /// `server.embedded`.
        image_tokens: NonZeroU32, in "tokens";
        /// Answer length to ask for.
        output_tokens: NonZeroU32 = NonZeroU32::new(4096).unwrap_or(NonZeroU32::MIN), in "tokens";
        /// Whether questions or videos are taken in a random order, that of Python's `random.shuffle`; otherwise in
        /// the file's.
        shuffle: bool = true;
        /// What becomes of questions that are damaged, and of videos that are damaged or missing.
        damaged: Damaged = Damaged::Refuse;
        /// Starts the random numbers, as `random.seed` of Python.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadNextqa {
    const NAME: &'static str = "workload.nextqa";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Takes questions about videos of NExT-QA, shown as frames, alone, as conversations or with a shared prefix.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "workload",
            file: "workload",
            kind: "workload",
            doc: "A folder: the requests as `workload.jsonl`, one JSON line each, and the images that they show.",
        }]
    }
}

/// What is asked about one video.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    name: String,
    video: String,
    questions: Vec<String>,
}

impl WorkloadNextqa {
    /// What is asked, in the order in which it is taken.
    fn asked(&self, questions: Vec<Question>) -> Vec<Asked> {
        let most = self.most_questions.map_or(usize::MAX, |n| n.get() as usize);
        let mut all: Vec<Asked> = Vec::new();
        let mut of_video: HashMap<String, usize> = HashMap::new();
        for Question {
            number,
            video,
            text,
        } in questions
        {
            if self.questions == VideoQuestions::Single {
                all.push(Asked {
                    name: format!("nextqa-{number}"),
                    video,
                    questions: vec![text],
                });
                continue;
            }
            let at = *of_video.entry(video.clone()).or_insert_with(|| {
                all.push(Asked {
                    name: format!("nextqa-{video}"),
                    video,
                    questions: Vec::new(),
                });
                all.len() - 1
            });
            if all[at].questions.len() < most {
                all[at].questions.push(text);
            }
        }
        if self.shuffle {
            PythonRandom::seeded(self.seed).shuffle(&mut all);
        }
        all
    }

    fn exchanges(&self, questions: Vec<String>, images: &Arc<[Image]>) -> Vec<Exchange> {
        let all = questions.into_iter().enumerate();
        all.map(|(i, said)| Exchange {
            said,
            // Every answer has one length.
            answered: String::new(),
            images: match i == 0 || self.questions == VideoQuestions::SharedPrefix {
                true => Arc::clone(images),
                false => Arc::default(),
            },
        })
        .collect()
    }

    /// The conversations of a workload, with the frames of their videos.
    async fn talks(
        &self,
        asked: Vec<Asked>,
        gallery: &mut Gallery<'_>,
    ) -> Result<Vec<Talk>, StepError> {
        let wanted = self.conversations.get() as usize;
        let mut talks = Vec::new();
        let mut rest = asked.into_iter();
        while talks.len() < wanted {
            let some: Vec<Asked> = rest.by_ref().take(wanted - talks.len()).collect();
            if some.is_empty() {
                break;
            }
            gallery.bring(some.iter().map(|one| &one.video)).await?;
            for one in some {
                if let Some(images) = gallery.images(&one.video) {
                    talks.push(Talk {
                        exchanges: self.exchanges(one.questions, images),
                        name: one.name,
                    });
                }
            }
        }
        Ok(talks)
    }

    fn order(&self, sample: Sample) -> Vec<Request> {
        match self.questions {
            VideoQuestions::Single => sample.grouped(false),
            VideoQuestions::MultiTurn => sample.by_turn(),
            VideoQuestions::SharedPrefix => sample.grouped(true),
        }
    }
}

/// The frames of videos that were brought so far, and what became of the others.
struct Gallery<'a> {
    context: &'a StepContext,
    videos: Videos,
    frames: Arc<Frames>,
    image_tokens: u32,
    damaged: Damaged,
    /// About how many videos there will be.
    expected: NonZeroU32,
    /// By the videos' ids; nothing of those that cannot be used.
    shown: HashMap<String, Option<Arc<[Image]>>>,
    /// The ids of each image, by its name.
    ids: BTreeMap<String, u32>,
    by_ffmpeg: usize,
    by_folder: usize,
    /// How many cannot be used, and why the first of them cannot.
    left_out: Option<(usize, String)>,
}

impl Gallery<'_> {
    fn images(&self, video: &str) -> Option<&Arc<[Image]>> {
        self.shown.get(video)?.as_ref()
    }

    /// Takes the frames of videos that are not there yet, of a few at once.
    async fn bring<'v>(
        &mut self,
        videos: impl Iterator<Item = &'v String>,
    ) -> Result<(), StepError> {
        let mut wanted: Vec<&String> = videos.filter(|v| !self.shown.contains_key(*v)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        for some in wanted.chunks(at_once) {
            let n = u32::try_from(self.shown.len()).unwrap_or(u32::MAX);
            made(self.context, "taking frames", n, self.expected)?;
            let mut tasks = JoinSet::new();
            for video in some {
                let (frames, video) = (Arc::clone(&self.frames), (*video).clone());
                let found = self.videos.find(&video).cloned();
                tasks.spawn(async move {
                    let taken = frames.take(&video, found.as_ref()).await;
                    (video, taken)
                });
            }
            let mut taken = Vec::new();
            while let Some(ended) = tasks.join_next().await {
                let ended = ended.map_err(|e| StepError::because("frames were not taken", e))?;
                taken.push(ended);
            }
            // In an order that does not depend on which was done first.
            taken.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (video, taken) in taken {
                self.keep(video, taken?)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, video: String, taken: Taken) -> Result<(), StepError> {
        let names = match taken {
            Taken::OfVideo(names) => {
                self.by_ffmpeg += 1;
                names
            }
            Taken::OfFolder(names) => {
                self.by_folder += 1;
                names
            }
            Taken::Nothing(problem) => {
                let problem = format!("video `{video}`: {problem}");
                if self.damaged == Damaged::Refuse {
                    return Err(StepError::new(problem).help(
                        "fetch the data set again, or write `damaged = \"recover\"` to leave out what cannot be used",
                    ));
                }
                self.left_out.get_or_insert((0, problem)).0 += 1;
                self.shown.insert(video, None);
                return Ok(());
            }
        };
        let images = names.into_iter().map(|name| self.image(name));
        let images = images.collect::<Result<Vec<_>, _>>()?;
        self.shown.insert(video, Some(images.into()));
        Ok(())
    }

    /// An image with ids that no other has.
    fn image(&mut self, name: String) -> Result<Image, StepError> {
        let next = self.ids.len();
        let number = *self
            .ids
            .entry(name.clone())
            .or_insert(u32::try_from(next).unwrap_or(u32::MAX));
        let begins = number.checked_mul(self.image_tokens);
        let begins = begins.and_then(|n| n.checked_add(FIRST_ID));
        let ends = begins.and_then(|n| n.checked_add(self.image_tokens));
        match (begins, ends) {
            (Some(begins), Some(ends)) => Ok(Image {
                name,
                ids: begins..ends,
            }),
            _ => Err(
                StepError::new("the frames come to more than two billion tokens")
                    .help("take fewer videos or frames"),
            ),
        }
    }

    /// What frames were taken from, and what was left out.
    fn text(&self) -> String {
        let mut parts = Vec::new();
        if self.by_ffmpeg > 0 {
            let version = self.frames.version().unwrap_or_default();
            parts.push(format!("of {} videos by {version}", self.by_ffmpeg));
        }
        if self.by_folder > 0 {
            parts.push(format!("out of {} folders, as they are", self.by_folder));
        }
        let mut text = format!("{} frames {}", self.ids.len(), parts.join(" and "));
        if let Some((n, first)) = &self.left_out {
            text += &format!("; {n} videos left out, the first: {first}");
        }
        text
    }
}

#[async_trait::async_trait]
impl Step for WorkloadNextqa {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let counter = Counter::load(&context.path(&self.model)?)?;
        context.doing("reading questions");
        let source = context.path(&self.source)?;
        let (questions, whole) = questions::read(&source, self.task, self.damaged)?;
        let output: PathBuf = context.output("workload");
        files::create_dir(&output)?;
        let mut gallery = Gallery {
            context,
            videos: Videos::beside(&source)?,
            frames: Arc::new(Frames::new(self, context, &output)?),
            image_tokens: self.image_tokens.get(),
            damaged: self.damaged,
            expected: self.conversations,
            shown: HashMap::new(),
            ids: BTreeMap::new(),
            by_ffmpeg: 0,
            by_folder: 0,
            left_out: None,
        };
        let talks = self.talks(self.asked(questions), &mut gallery).await?;
        if let (true, Some((n, first))) = (talks.is_empty(), &gallery.left_out) {
            let message = format!("none of {n} videos can be used, the first: {first}");
            return Err(StepError::new(message));
        }
        let mut sampling = Sampling {
            counter,
            wanted: self.conversations,
            limits: Limits::default(),
            output: Some(self.output_tokens),
            cycles: true,
        };
        let wanted = self.conversations;
        let taken = sampling.take(&talks, |n| made(context, "counting tokens", n, wanted));
        // What was counted counts for the next time, also where this one fails.
        let known = sampling.counter.finish();
        let sample = taken?;
        let told = sample.text(wanted);
        let failed = |e: loadgen::WorkloadError| StepError::new(e.to_string());
        let workload = Workload::new(self.order(sample)).map_err(failed)?;
        let workload = workload.beside(output.clone());
        workload.write(&output).map_err(failed)?;
        Ok(StepReport::line(format!(
            "{} requests of {} in, {} out{}; {told}; {}{}{known}",
            workload.requests().len(),
            tokens_text(&workload, |r| r.input_tokens),
            tokens_text(&workload, |r| r.output_tokens.get()),
            ideal_text(&workload),
            gallery.text(),
            whole.text()
        )))
    }
}
