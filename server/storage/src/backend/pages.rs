//! redb's storage on the [`Disk`](crate::disk::Disk) seam.

use std::fmt;
use std::io;

use crate::disk::File;

/// The file that redb reads and writes its pages through. The data directory's lock stands for redb's own.
pub(crate) struct Pages {
    file: Box<dyn File>,
    no_fsync: bool,
}

impl Pages {
    pub(crate) fn new(file: Box<dyn File>, no_fsync: bool) -> Self {
        Self { file, no_fsync }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

impl redb::StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.pread_exact(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.no_fsync { Ok(()) } else { self.file.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.pwrite(data, offset)
    }
}
