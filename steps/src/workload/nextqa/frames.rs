//! Frames of a video as images of a workload: taken by `ffmpeg` of a file, or out of a folder as they are.
//!
//! Every run of a program has a limit, and what it says is kept with the step's logs. Videos that bring
//! less than they should are damage, and told as such.

use super::super::below;
use super::WorkloadNextqa;
use super::videos::Found;
use crate::files;
use crate::python::{Failure, Runner};
use engine::process::find_program;
use engine::step::{StepContext, StepError};
use loadgen::image_name;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a program may work on one video: NExT-QA's are of a minute or two at most.
const LIMIT: Duration = Duration::from_secs(120);
/// How well JPEG keeps frames, from 2 (best) to 31: what ffmpeg's own documents call good.
const QUALITY: &str = "3";

/// The names of a video's frames in the workload, or why there are none.
#[derive(Debug)]
pub(super) enum Taken {
    /// `ffmpeg` has taken them.
    OfVideo(Vec<String>),
    /// They were there as images.
    OfFolder(Vec<String>),
    /// It cannot be used.
    Nothing(String),
}

/// Takes frames, as many and as large as the step says, and puts them into the workload's folder.
pub(super) struct Frames {
    runner: Runner,
    output: PathBuf,
    most: u64,
    rate: Option<f64>,
    size: Option<u32>,
    /// What `ffmpeg` calls itself, once it was needed.
    version: OnceLock<String>,
    /// How many images were written.
    written: AtomicU64,
}

impl Frames {
    /// Builds what takes frames for `step`, into the folder `output`.
    pub(super) fn new(
        step: &WorkloadNextqa,
        context: &StepContext,
        output: &Path,
    ) -> Result<Self, StepError> {
        files::create_dir(&output.join("images"))?;
        Ok(Self {
            runner: Runner {
                supervisor: context.supervisor.clone(),
                label: context.node.clone(),
                logs: context.logs.clone(),
                secrets: Vec::new(),
            },
            output: output.to_owned(),
            most: step.frames.get().into(),
            rate: step.frames_per_second.map(|rate| rate.0),
            size: step.size.map(std::num::NonZeroU32::get),
            version: OnceLock::new(),
            written: AtomicU64::new(0),
        })
    }

    /// What `ffmpeg` calls itself, if it was needed.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.get().map(String::as_str)
    }

    /// The frames of a video.
    ///
    /// # Errors
    /// There is no `ffmpeg` for a video that needs it, or an image cannot be written.
    pub(super) async fn take(
        &self,
        video: &str,
        found: Option<&Found>,
    ) -> Result<Taken, StepError> {
        match found {
            None => Ok(Taken::Nothing(
                "there is no file and no folder of that name".to_owned(),
            )),
            Some(Found::Frames(frames)) => {
                let picked = spread(frames.len() as u64, self.most);
                let picked = picked.into_iter().filter_map(|at| frames.get(at as usize));
                Ok(match self.keep(picked.map(PathBuf::as_path))? {
                    Ok(names) => Taken::OfFolder(names),
                    Err(problem) => Taken::Nothing(problem),
                })
            }
            Some(Found::Video(path)) => {
                self.look_for_ffmpeg().await?;
                Ok(match self.of_video(video, path).await? {
                    Ok(names) => Taken::OfVideo(names),
                    Err(problem) => Taken::Nothing(problem),
                })
            }
        }
    }

    /// The frames of a file, or what is wrong with it.
    async fn of_video(
        &self,
        video: &str,
        path: &Path,
    ) -> Result<Result<Vec<String>, String>, StepError> {
        let wanted = match self.rate {
            Some(_) => None,
            None => match self.count(video, path).await? {
                Ok(n) => Some(spread(n, self.most)),
                Err(problem) => return Ok(Err(problem)),
            },
        };
        let folder = self.runner.folder(&format!("frames-{video}"));
        // What an attempt before has left.
        let _ = fs::remove_dir_all(&folder);
        files::create_dir(&folder)?;
        let filter = self.filter(wanted.as_deref());
        let argv = ffmpeg(path, &filter, self.most, &folder);
        let ran = self
            .runner
            .run(&format!("ffmpeg-{video}"), argv, LIMIT)
            .await?;
        let taken = match ran {
            Err(failure) => Err(said(&failure, "ffmpeg")),
            Ok(_) => self.taken(&folder, wanted.map(|w| w.len()))?,
        };
        let _ = fs::remove_dir_all(&folder);
        Ok(taken)
    }

    /// Keeps what `ffmpeg` has written, if it is what was wanted.
    fn taken(
        &self,
        folder: &Path,
        wanted: Option<usize>,
    ) -> Result<Result<Vec<String>, String>, StepError> {
        let frames = below::walk(folder, below::MOST_ENTRIES)?;
        match (frames.len(), wanted) {
            (0, _) => Ok(Err("it has no frames".to_owned())),
            (n, Some(wanted)) if n != wanted => {
                Ok(Err(format!("ffmpeg took {n} of {wanted} frames")))
            }
            _ => self.keep(frames.iter().map(PathBuf::as_path)),
        }
    }

    /// How many frames a file has.
    async fn count(&self, video: &str, path: &Path) -> Result<Result<u64, String>, StepError> {
        let ran = self
            .runner
            .run(&format!("ffprobe-{video}"), ffprobe(path), LIMIT)
            .await?;
        Ok(match ran {
            Err(failure) => Err(said(&failure, "ffprobe")),
            Ok(text) => match text.trim().trim_end_matches(',').parse() {
                Ok(0) | Err(_) => Err("it has no frames".to_owned()),
                Ok(n) => Ok(n),
            },
        })
    }

    /// Which frames are taken, and how they are scaled, in ffmpeg's words.
    fn filter(&self, wanted: Option<&[u64]>) -> String {
        let mut filters = Vec::new();
        if let Some(rate) = self.rate {
            filters.push(format!("fps={rate}"));
        }
        if let Some(wanted) = wanted {
            let each: Vec<String> = wanted.iter().map(|n| format!("eq(n\\,{n})")).collect();
            filters.push(format!("select={}", each.join("+")));
        }
        if let Some(size) = self.size {
            filters.push(format!(
                "scale={size}:{size}:force_original_aspect_ratio=decrease"
            ));
        }
        filters.join(",")
    }

    /// Puts images into the workload's folder, each once, and names them; or says which is none.
    fn keep<'a>(
        &self,
        frames: impl Iterator<Item = &'a Path>,
    ) -> Result<Result<Vec<String>, String>, StepError> {
        let mut names = Vec::new();
        for path in frames {
            let read = fs::read(path);
            let Some((bytes, name)) = read.ok().and_then(|bytes| {
                let name = image_name(&bytes)?;
                Some((bytes, name))
            }) else {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                return Ok(Err(format!("`{file}` is no PNG, JPEG, GIF or WebP image")));
            };
            let to = self.output.join(&name);
            if !to.exists() {
                // Another video may have the same frame: whole, or not there.
                let number = self.written.fetch_add(1, Ordering::Relaxed);
                let aside = to.with_extension(format!("{number}.new"));
                files::write(&aside, bytes)?;
                fs::rename(&aside, &to).map_err(|e| {
                    StepError::because(format!("could not write `{}`", to.display()), e)
                })?;
            }
            names.push(name);
        }
        Ok(match names.is_empty() {
            true => Err("it has no frames".to_owned()),
            false => Ok(names),
        })
    }

    /// Makes sure that `ffmpeg` is there, and notes its version.
    async fn look_for_ffmpeg(&self) -> Result<(), StepError> {
        if self.version.get().is_some() {
            return Ok(());
        }
        let search = std::env::var_os("PATH").unwrap_or_default();
        for program in ["ffmpeg", "ffprobe"] {
            find_program(program, Path::new("/"), &search).map_err(|e| {
                StepError::because("frames of videos are taken by ffmpeg", e).help(
                    "install ffmpeg (the Debian package `ffmpeg`), or put the frames of each video as images into a folder called as it",
                )
            })?;
        }
        let argv = ["ffmpeg", "-version"].map(str::to_owned).to_vec();
        let ran = self.runner.run("ffmpeg-version", argv, LIMIT).await?;
        let text = ran.map_err(|failure| StepError::new(said(&failure, "ffmpeg")))?;
        // `ffmpeg version 5.1.6-0+deb12u1 Copyright …`
        let words: Vec<&str> = text.split_whitespace().take(3).collect();
        let version = match words.as_slice() {
            [program, "version", version] => format!("{program} {version}"),
            _ => "ffmpeg".to_owned(),
        };
        // Another video may have been first.
        let _ = self.version.set(version);
        Ok(())
    }
}

/// `most` of `n` frames at most, evenly from the first to the last, as `numpy.linspace` has them in whole
/// numbers.
fn spread(n: u64, most: u64) -> Vec<u64> {
    let taken = n.min(most);
    match taken {
        0 => Vec::new(),
        1 => vec![0],
        _ => (0..taken).map(|i| i * (n - 1) / (taken - 1)).collect(),
    }
}

fn ffprobe(path: &Path) -> Vec<String> {
    let path = path.display().to_string();
    let argv = [
        "ffprobe",
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-count_frames",
        "-show_entries",
        "stream=nb_read_frames",
        "-of",
        "csv=p=0",
        &path,
    ];
    argv.map(str::to_owned).to_vec()
}

fn ffmpeg(path: &Path, filter: &str, most: u64, folder: &Path) -> Vec<String> {
    let (path, most) = (path.display().to_string(), most.to_string());
    let frames = folder.join("%06d.jpg").display().to_string();
    // One thread each: several videos are worked on at once, and the bytes must not depend on how many.
    let argv = [
        "ffmpeg",
        "-nostdin",
        "-v",
        "error",
        "-threads",
        "1",
        "-i",
        &path,
        "-map",
        "0:v:0",
        "-vf",
        filter,
        "-fps_mode",
        "passthrough",
        "-frames:v",
        &most,
        "-threads",
        "1",
        "-flags",
        "+bitexact",
        "-q:v",
        QUALITY,
        "-f",
        "image2",
        &frames,
    ];
    argv.map(str::to_owned).to_vec()
}

/// Why a program brought nothing, with the last thing that it said.
fn said(failure: &Failure, program: &str) -> String {
    let how = match failure.exit {
        None => format!("{program} took longer than {} s", LIMIT.as_secs()),
        Some(_) => format!("{program} cannot read it"),
    };
    match failure
        .said
        .iter()
        .rev()
        .find(|line| !line.trim().is_empty())
    {
        Some(line) => format!("{how}: {}", line.trim()),
        None => how,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spread_from_the_first_to_the_last() {
        assert_eq!(spread(10, 4), [0, 3, 6, 9]);
        assert_eq!(spread(100, 3), [0, 49, 99]);
        assert_eq!(spread(3, 16), [0, 1, 2]);
        assert_eq!(spread(7, 1), [0]);
        assert!(spread(0, 4).is_empty());
    }
}
