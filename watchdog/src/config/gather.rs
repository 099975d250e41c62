//! From file to file: what all of them say together, and all that is wrong with them. A wrong one does not
//! end it, so that a check can tell of the others too.

use std::path::PathBuf;

use super::error::ConfigError;
use super::file::{self, Reader};
use super::search::{Found, What};
use super::{Daemon, Layer, exporters, keys, resolve};

/// What came of reading the files for one purpose.
#[derive(Debug)]
pub struct Reading<T> {
    /// Those that were there, weakest first, also those in which something is wrong.
    pub files: Vec<PathBuf>,
    /// What they say together, or all that is wrong, of each file the topmost.
    pub result: Result<T, Vec<ConfigError>>,
}

impl<T> Reading<T> {
    pub(super) fn first_error(self) -> Result<T, ConfigError> {
        self.result.map_err(|mut errors| errors.swap_remove(0))
    }
}

/// The files, read but not yet held against each other.
pub(super) struct Gathered {
    files: Vec<PathBuf>,
    layers: Vec<Layer>,
    daemon: Daemon,
    errors: Vec<ConfigError>,
}

/// Reads the files, weakest first.
pub(super) fn gather(search: Vec<Found>, reader: Reader) -> Gathered {
    let mut gathered = Gathered {
        files: Vec::new(),
        layers: Vec::new(),
        daemon: Daemon::default(),
        errors: Vec::new(),
    };
    for found in search {
        match found.what {
            What::File => gathered.take(&found, reader),
            What::DropIns => match file::drop_ins(&found, reader) {
                Ok(files) => files.iter().for_each(|file| gathered.take(file, reader)),
                Err(error) => gathered.errors.push(error),
            },
        }
    }
    gathered
}

impl Gathered {
    fn take(&mut self, found: &Found, reader: Reader) {
        let text = match file::read(found, reader) {
            Ok(None) => return,
            Ok(Some(text)) => Ok(text),
            Err(error) => Err(error),
        };
        self.files.push(found.path.clone());
        match text.and_then(|text| keys::parse(found, &text, &mut self.daemon)) {
            Ok(layer) => self.layers.push(layer),
            Err(error) => self.errors.push(error),
        }
    }

    /// Makes what was asked for of what all the files say, if each is right by itself.
    pub(super) fn finish<T>(
        self,
        make: impl FnOnce(Vec<Layer>, Daemon) -> Result<T, ConfigError>,
    ) -> Reading<T> {
        let result = if self.errors.is_empty() {
            resolve::check_policy(&self.daemon.policy)
                .and_then(|()| exporters::check(&self.daemon.exporters))
                .map_err(ConfigError::from)
                .and_then(|()| make(self.layers, self.daemon))
                .map_err(|error| vec![error])
        } else {
            Err(self.errors)
        };
        Reading {
            files: self.files,
            result,
        }
    }
}
