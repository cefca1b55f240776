//! Where the videos of a data set lie: files named by the videos' ids, or folders of that name with the
//! frames as images.

use super::super::below::{MOST_ENTRIES, walk};
use engine::step::StepError;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// How files of videos end.
const VIDEOS: [&str; 6] = ["avi", "m4v", "mkv", "mov", "mp4", "webm"];
/// How images end.
const IMAGES: [&str; 5] = ["gif", "jpeg", "jpg", "png", "webp"];

/// What there is of a video.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// A file, of which frames have to be taken.
    Video(PathBuf),
    /// Its frames, in the order of their names.
    Frames(Vec<PathBuf>),
}

/// The videos of a data set, by their ids.
#[derive(Debug, Default)]
pub(super) struct Videos(HashMap<String, Found>);

impl Videos {
    /// Looks for videos in a folder, or in that of a file.
    pub(super) fn beside(source: &Path) -> Result<Self, StepError> {
        let folder = match source.is_file() {
            true => source.parent().unwrap_or(Path::new(".")),
            false => source,
        };
        let mut videos = Self::default();
        for path in walk(folder, MOST_ENTRIES)? {
            videos.add(path);
        }
        Ok(videos)
    }

    pub(super) fn find(&self, video: &str) -> Option<&Found> {
        self.0.get(video)
    }

    /// Takes a file in; frames count before a video of the same id.
    fn add(&mut self, path: PathBuf) {
        let is_one_of = |endings: &[&str]| {
            let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            ending.is_some_and(|ending| endings.contains(&ending.as_str()))
        };
        if is_one_of(&VIDEOS) {
            if let Some(id) = path.file_stem().map(|s| s.to_string_lossy().into_owned()) {
                self.0.entry(id).or_insert(Found::Video(path));
            }
        } else if is_one_of(&IMAGES) {
            let folder = path.parent().and_then(Path::file_name);
            let Some(id) = folder.map(|name| name.to_string_lossy().into_owned()) else {
                return;
            };
            let found = self.0.entry(id).or_insert(Found::Frames(Vec::new()));
            match found {
                Found::Frames(frames) => frames.push(path),
                Found::Video(_) => *found = Found::Frames(vec![path]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::below::DEEPEST;
    use super::*;
    use std::fs;

    #[test]
    fn videos_are_found_by_their_ids_and_frames_come_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "videos/NExTVideo/0001/10.mp4",
            "videos/11.MP4",
            "frames/11/b.png",
            "frames/11/a.jpg",
            "frames/11/notes.txt",
            "OE/test.csv",
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let at = |name: &str| folder.path().join(name);
        let videos = Videos::beside(folder.path()).unwrap();
        let expected = Found::Video(at("videos/NExTVideo/0001/10.mp4"));
        assert_eq!(videos.find("10"), Some(&expected));
        let expected = Found::Frames(vec![at("frames/11/a.jpg"), at("frames/11/b.png")]);
        assert_eq!(videos.find("11"), Some(&expected));
        assert_eq!(videos.find("12"), None);
        let beside = Videos::beside(&at("frames/11/notes.txt")).unwrap();
        assert!(beside.find("11").is_some() && beside.find("10").is_none());
        let error = walk(folder.path(), 3).unwrap_err();
        assert!(error.message.contains("more than 3 files"), "{error}");
        assert!(walk(Path::new("/nowhere"), 3).is_err());
    }

    #[test]
    fn a_circle_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.mp4"), "").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        let found = walk(folder.path(), 1000).unwrap();
        assert!(!found.is_empty() && found.len() <= DEEPEST + 1);
    }
}
