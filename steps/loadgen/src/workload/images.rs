//! The images that requests show: what they may be called, where they lie and what is sent of them.
//!
//! An image is encoded once, before a load begins, and held as the text that is sent; requests share it.
//! What an image shows is not looked at: only whether its bytes begin as those of an image do.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::WorkloadError;
use crate::{Prompt, Request};

/// The folder of images beside the file of requests.
const FOLDER: &str = "images";
/// Why a file of requests alone cannot name images: whoever has it may not have them.
pub(super) const NEED_A_FOLDER: &str = "images that are files lie in a folder with the requests; help: name the folder that has `workload.jsonl` and them";
/// A larger file is no image that a model would take.
const LARGEST: u64 = 64 << 20;
/// What addresses begin with; everything else is the name of a file.
const ADDRESSES: [&str; 3] = ["data:", "http://", "https://"];
/// Digits of a digest in a file's name: 128 bits.
const DIGITS: usize = 32;

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its file cannot be read or copied.
    #[error("cannot read image `{image}`: {source}")]
    Io {
        /// Its name in the workload.
        image: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its file is larger than 64 MiB.
    #[error("image `{image}` is larger than 64 MiB")]
    TooLarge {
        /// Its name in the workload.
        image: String,
    },
    /// Its bytes are those of something else.
    #[error("`{image}` is no PNG, JPEG, GIF or WebP image")]
    NoImage {
        /// Its name in the workload.
        image: String,
    },
    /// All images together are too large.
    #[error(
        "the images of the workload come to more than {limit} bytes when they are encoded; help: take fewer or smaller ones"
    )]
    TooMany {
        /// The bound.
        limit: u64,
    },
}

/// All images of a workload as they are sent, by their names in it.
#[derive(Clone, Debug, Default)]
pub struct Images {
    by_name: HashMap<String, Arc<str>>,
    bytes: u64,
}

impl Images {
    pub(super) fn read(
        requests: &[Request],
        folder: Option<&Path>,
        limit: u64,
    ) -> Result<Self, WorkloadError> {
        let mut images = Self::default();
        for request in requests {
            for name in &request.images {
                if !images.by_name.contains_key(name) {
                    let added = images.add(name, folder.unwrap_or(Path::new("")), limit);
                    added.map_err(|source| of(request, source))?;
                }
            }
        }
        Ok(images)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Bytes of memory that they take, encoded.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is sent of each image of a request.
    pub(crate) fn of(&self, request: &Request) -> Vec<Arc<str>> {
        let found = |name| self.by_name.get(name).cloned();
        request.images.iter().filter_map(found).collect()
    }

    fn add(&mut self, name: &str, folder: &Path, limit: u64) -> Result<(), ImageError> {
        let sent: Arc<str> = match is_address(name) {
            true => name.into(),
            false => encoded(&bytes(name, folder)?, name)?.into(),
        };
        self.bytes += sent.len() as u64;
        if self.bytes > limit {
            return Err(ImageError::TooMany { limit });
        }
        self.by_name.insert(name.to_owned(), sent);
        Ok(())
    }
}

/// The name that a workload gives to an image of these bytes: by their digest, in the folder of images.
/// `None` if they are no image that servers know.
#[must_use]
pub fn image_name(bytes: &[u8]) -> Option<String> {
    let (_, extension) = kind(bytes)?;
    let digest = blake3::hash(bytes).to_hex();
    Some(format!("{FOLDER}/{}.{extension}", &digest[..DIGITS]))
}

/// Whether some image of these requests is a file.
pub(super) fn has_files(requests: &[Request]) -> bool {
    let mut names = requests.iter().flat_map(|request| &request.images);
    names.any(|name| !is_address(name))
}

/// Checks what a request shows, as far as that can be told without looking at files.
pub(super) fn check(request: &Request) -> Result<(), String> {
    if request.images.is_empty() {
        return Ok(());
    }
    for name in &request.images {
        let path = Path::new(name);
        let is_inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !is_address(name) && (name.is_empty() || !is_inside) {
            return Err(format!(
                "expected an image to be a file beside the workload or an address, found `{name}`"
            ));
        }
    }
    match &request.prompt {
        Prompt::Text(_) => Ok(()),
        Prompt::Tokens(_) => Err("`images` cannot stand beside `input_ids`".into()),
        Prompt::Messages(messages) => match shown_in(messages) {
            Some(_) => Ok(()),
            None => Err("`images` need a message of role `user`".into()),
        },
    }
}

/// The message that shows the images of a request: the last one that a user says.
pub(crate) fn shown_in(messages: &[Value]) -> Option<usize> {
    messages
        .iter()
        .rposition(|message| message["role"] == "user")
}

/// Copies the images of `from` into `to`, each once, and names them in the requests as they lie there.
pub(super) fn copied(
    requests: &[Request],
    from: &Path,
    to: &Path,
) -> Result<Vec<Request>, WorkloadError> {
    let folder = to.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|source| WorkloadError::Io {
        path: folder,
        source,
    })?;
    let mut names: HashMap<&str, String> = HashMap::new();
    for request in requests {
        for name in &request.images {
            if !is_address(name) && !names.contains_key(name.as_str()) {
                let copied = copy(name, from, to).map_err(|source| of(request, source))?;
                names.insert(name, copied);
            }
        }
    }
    let renamed = |name: &String| names.get(name.as_str()).unwrap_or(name).clone();
    let all = requests.iter().map(|request| Request {
        images: request.images.iter().map(renamed).collect(),
        ..request.clone()
    });
    Ok(all.collect())
}

fn copy(name: &str, from: &Path, to: &Path) -> Result<String, ImageError> {
    let bytes = bytes(name, from)?;
    let named = image_name(&bytes).ok_or_else(|| ImageError::NoImage { image: name.into() })?;
    let path = to.join(&named);
    // By its digest: what is there already is the same.
    if !path.exists() {
        fs::write(&path, &bytes).map_err(|source| ImageError::Io {
            image: name.into(),
            source,
        })?;
    }
    Ok(named)
}

fn bytes(name: &str, folder: &Path) -> Result<Vec<u8>, ImageError> {
    let io = |source| ImageError::Io {
        image: name.into(),
        source,
    };
    let path = folder.join(name);
    if fs::metadata(&path).map_err(io)?.len() > LARGEST {
        return Err(ImageError::TooLarge { image: name.into() });
    }
    fs::read(&path).map_err(io)
}

/// Bytes of an image as a `data:` address.
fn encoded(bytes: &[u8], name: &str) -> Result<String, ImageError> {
    let (media, _) = kind(bytes).ok_or_else(|| ImageError::NoImage { image: name.into() })?;
    let mut address = format!("data:{media};base64,");
    STANDARD.encode_string(bytes, &mut address);
    Ok(address)
}

/// The media type and the usual ending of an image, by how its bytes begin.
fn kind(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some(("image/png", "png")),
        [0xff, 0xd8, 0xff, ..] => Some(("image/jpeg", "jpg")),
        [b'G', b'I', b'F', b'8', ..] => Some(("image/gif", "gif")),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some(("image/webp", "webp")),
        _ => None,
    }
}

fn is_address(name: &str) -> bool {
    ADDRESSES.iter().any(|begins| name.starts_with(begins))
}

fn of(request: &Request, source: ImageError) -> WorkloadError {
    WorkloadError::Image {
        id: request.id.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Workload;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n one";
    const JPEG: &[u8] = b"\xff\xd8\xff two";

    fn folder(line: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("workload.jsonl"), line).unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn line(id: &str, images: &str) -> String {
        format!(
            r#"{{"id":"{id}","text":"x","input_tokens":1,"output_tokens":1,"images":{images}}}"#
        ) + "\n"
    }

    #[test]
    fn images_lie_beside_the_workload_each_once_by_its_digest() {
        let lines =
            line("a", r#"["a.png","b.jpg"]"#) + &line("b", r#"["same.png","https://h/i.png"]"#);
        let folder = folder(
            &lines,
            &[("a.png", PNG), ("same.png", PNG), ("b.jpg", JPEG)],
        );
        let read = Workload::read(folder.path()).unwrap();
        let written = folder.path().join("written");
        read.write(&written).unwrap();
        let copy = Workload::read(&written).unwrap();
        let (png, jpeg) = (image_name(PNG).unwrap(), image_name(JPEG).unwrap());
        assert_eq!(copy.requests()[0].images, [png.clone(), jpeg]);
        assert_eq!(
            copy.requests()[1].images,
            [png.clone(), "https://h/i.png".to_owned()]
        );
        let files = fs::read_dir(written.join(FOLDER)).unwrap().count();
        assert_eq!(files, 2);
        assert_eq!(fs::read(written.join(png)).unwrap(), PNG);
        // What is written a second time is the same, byte for byte.
        let again = folder.path().join("again");
        copy.write(&again).unwrap();
        let text = |at: &Path| fs::read_to_string(at.join("workload.jsonl")).unwrap();
        assert_eq!(text(&written), text(&again));
        // A part of it still finds its images.
        let part = copy.with_requests(vec![copy.requests()[0].clone()]);
        assert_eq!(part.unwrap().images(1 << 20).unwrap().len(), 2);
    }

    #[test]
    fn an_image_is_encoded_once_and_within_a_bound() {
        let lines = line("a", r#"["a.png"]"#) + &line("b", r#"["a.png","data:x"]"#);
        let folder = folder(&lines, &[("a.png", PNG)]);
        let read = Workload::read(folder.path()).unwrap();
        let images = read.images(1 << 20).unwrap();
        assert_eq!(images.len(), 2);
        let sent = images.of(&read.requests()[1]);
        assert_eq!(&*sent[0], "data:image/png;base64,iVBORw0KGgogb25l");
        assert_eq!(&*sent[1], "data:x");
        assert_eq!(images.bytes(), (sent[0].len() + sent[1].len()) as u64);
        let error = read.images(30).unwrap_err().to_string();
        assert!(error.contains("more than 30 bytes"), "{error}");
    }

    #[test]
    fn what_cannot_be_shown_is_told_by_name() {
        for (images, rule) in [
            (r#"["/etc/passwd"]"#, "found `/etc/passwd`"),
            (r#"["../a.png"]"#, "found `../a.png`"),
            (r#"[""]"#, "found ``"),
            (r#""a.png""#, "invalid type"),
        ] {
            let folder = folder(&line("a", images), &[]);
            let error = Workload::read(folder.path()).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("workload.jsonl:1: ") && error.contains(rule),
                "{error}"
            );
        }
        let ids = r#"{"id":"a","input_ids":[1],"input_tokens":1,"output_tokens":1,"images":["x"]}"#;
        let system = r#"{"id":"a","messages":[{"role":"system","content":"x"}],"input_tokens":1,"output_tokens":1,"images":["x"]}"#;
        for (line, rule) in [(ids, "beside `input_ids`"), (system, "role `user`")] {
            let folder = folder(line, &[]);
            let error = Workload::read(folder.path()).unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
        }
        let alone = folder(&line("a", r#"["a.png"]"#), &[("a.png", PNG)]);
        let error = Workload::read(&alone.path().join("workload.jsonl")).unwrap_err();
        assert!(error.to_string().contains("name the folder"), "{error}");
        let folder = folder(
            &(line("a", r#"["gone.png"]"#) + &line("b", r#"["text.png"]"#)),
            &[("text.png", b"text")],
        );
        let read = Workload::read(folder.path()).unwrap();
        let error = read.images(1 << 20).unwrap_err().to_string();
        assert!(
            error.contains("request `a`: cannot read image `gone.png`"),
            "{error}"
        );
        let second = read.with_requests(read.requests()[1..].to_vec()).unwrap();
        let error = second.images(1 << 20).unwrap_err().to_string();
        assert!(
            error.contains("request `b`: `text.png` is no PNG"),
            "{error}"
        );
    }
}
