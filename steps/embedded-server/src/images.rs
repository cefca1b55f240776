//! Images as placeholders: a stated number of token ids that follow from an image's bytes alone.
//!
//! No image is looked at. The same bytes are the same ids, others are others, so that the cache finds a
//! prefix again only where the images in it are the same. The ids lie above every vocabulary, so that no text
//! is mistaken for an image; what computes them takes some row of its embedding for each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Ids from here on stand for images.
const FIRST: u32 = 1 << 31;

/// Why something is no image that can stand for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    /// It would have to be fetched.
    #[error("this server fetches nothing; send the image itself, as `data:image/png;base64,…`")]
    Elsewhere,
    /// It is not what it says.
    #[error("found an image that is not in base64; send it as `data:image/png;base64,…`")]
    NoBase64,
    /// It has no bytes.
    #[error("found an image without a byte")]
    Empty,
}

/// The `n_tokens` ids that stand for an image, which is written as a `data:` address or as base64 alone.
pub(crate) fn placeholder(written: &str, n_tokens: usize) -> Result<Vec<u32>, ImageError> {
    let encoded = match written.split_once(',') {
        Some((head, encoded)) if head.starts_with("data:") && head.ends_with(";base64") => encoded,
        _ if written.contains("://") => return Err(ImageError::Elsewhere),
        _ => written,
    };
    let bytes = STANDARD.decode(encoded).map_err(|_| ImageError::NoBase64)?;
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes);
    let mut reader = hasher.finalize_xof();
    let id = |_| {
        let mut bytes = [0; 4];
        reader.fill(&mut bytes);
        FIRST | u32::from_le_bytes(bytes)
    };
    Ok((0..n_tokens).map(id).collect())
}

/// The row of the embedding that is taken for a token; `None` if it is no id of that vocabulary, and stands
/// for no image.
pub(crate) fn embedded(token: u32, vocab_size: usize) -> Option<u32> {
    match token.checked_sub(FIRST) {
        None => ((token as usize) < vocab_size).then_some(token),
        Some(image) => u32::try_from(image as usize % vocab_size.max(1)).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_the_bytes_alone() {
        let ids = |written: &str| placeholder(written, 5).unwrap();
        let image = ids("data:image/png;base64,iVBORw==");
        assert_eq!(image.len(), 5);
        assert!(image.iter().all(|id| *id >= FIRST));
        // However it is spelled.
        assert_eq!(image, ids("data:image/jpeg;base64,iVBORw=="));
        assert_eq!(image, ids("iVBORw=="));
        let other = ids("data:image/png;base64,iVBORx=="
            .replace("Rx", "SQ")
            .as_str());
        assert!(image.iter().zip(&other).all(|(a, b)| a != b));
        assert_eq!(placeholder("iVBORw==", 2).unwrap(), image[..2]);
    }

    #[test]
    fn what_is_no_image_is_told() {
        for (written, error) in [
            ("https://h/a.png", ImageError::Elsewhere),
            ("file:///etc/passwd", ImageError::Elsewhere),
            ("data:image/png;base64,%%", ImageError::NoBase64),
            ("data:image/png,x", ImageError::NoBase64),
            ("data:image/png;base64,", ImageError::Empty),
            ("", ImageError::Empty),
        ] {
            assert_eq!(placeholder(written, 3), Err(error), "{written}");
        }
    }

    #[test]
    fn a_row_of_the_embedding_stands_for_each_id() {
        assert_eq!((embedded(9, 10), embedded(10, 10)), (Some(9), None));
        assert_eq!(embedded(FIRST | 23, 10), Some(3));
        assert_eq!(embedded(u32::MAX, 10), Some((u32::MAX - FIRST) % 10));
    }
}
