//! Why a program does not run, in words that say what to mend. The kernel has one error for several causes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::spawn::Failed;
use super::{Credentials, Program};
use crate::event::ExitReason;
use crate::text;

/// What the kernel itself reads of the first line of a script.
const MAX_SCRIPT_LINE_BYTES: usize = 256;

/// Longest path of the interpreter that an ELF file names.
const MAX_INTERPRETER_BYTES: u64 = 4096;

pub(super) fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// What a failed start means.
pub(super) fn reason(program: &Program, failed: &Failed) -> ExitReason {
    let name = program.name();
    match (failed, &program.cwd) {
        (Failed::Directory(error), Some(cwd)) => {
            ExitReason::error(format_args!("cannot run in {}: {}", cwd.display(), directory(error)))
        }
        // Nothing is found in a directory that is not there, and that is what is wrong.
        (Failed::Exec(_), Some(cwd)) if !cwd.is_dir() => {
            let what = if cwd.exists() { "not a directory" } else { "no such directory" };
            ExitReason::error(format_args!("cannot run in {}: {what}", cwd.display()))
        }
        (Failed::Exec(error), _) => ExitReason::error(format_args!("cannot run {name:?}: {}", exec(program, error))),
        (Failed::Directory(error) | Failed::Other(error), _) => match program.credentials {
            Some(Credentials { uid, gid }) if error.kind() == ErrorKind::PermissionDenied => {
                ExitReason::error(format_args!("cannot run {name:?} as user {uid} and group {gid}: {error}"))
            }
            _ => ExitReason::error(format_args!("cannot run {name:?}: {error}")),
        },
    }
}

fn directory(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such directory".into(),
        ErrorKind::NotADirectory => "not a directory".into(),
        ErrorKind::PermissionDenied => "permission denied: its user may not enter it".into(),
        _ => error.to_string(),
    }
}

fn exec(program: &Program, error: &io::Error) -> String {
    let Some(path) = program.find() else { return missing(program) };
    let interpreter = || interpreter(&path).map(|interpreter| program.in_directory(&interpreter));
    match Errno::from_io_error(error) {
        Some(Errno::NOEXEC) => {
            "Exec format error: neither a program for this processor nor a script that begins with #!".into()
        }
        Some(Errno::NOENT) => match interpreter() {
            Some(interpreter) => format!("interpreter {} not found", shown(&interpreter)),
            None => error.to_string(),
        },
        Some(Errno::ACCESS) => match interpreter().filter(|interpreter| !is_executable(interpreter)) {
            Some(interpreter) => {
                format!("permission denied: its interpreter {} is not executable", shown(&interpreter))
            }
            None => "permission denied: its user may not execute it".into(),
        },
        _ => error.to_string(),
    }
}

/// There is no executable file of this name.
fn missing(program: &Program) -> String {
    let name = program.name();
    if name.contains('/') {
        return match std::fs::metadata(program.in_directory(Path::new(name))) {
            Ok(file) if file.is_dir() => "it is a directory".into(),
            Ok(_) => "permission denied: it is not executable".into(),
            Err(error) if error.kind() == ErrorKind::NotFound => "no such file".into(),
            Err(error) => error.to_string(),
        };
    }
    let path = program.search_path();
    let files = std::env::split_paths(&path).map(|folder| program.in_directory(&folder).join(name));
    let not_executable = files.filter(|file| file.is_file()).map(|file| file.display().to_string()).next();
    match not_executable {
        Some(file) => format!("permission denied: {file} is not executable"),
        None => format!("not found in PATH {}", path.display()),
    }
}

/// With what is not seen in it, such as the return of a Windows line end.
fn shown(path: &Path) -> String {
    text::one_line(&path.display().to_string()).into_owned()
}

/// The program that the kernel runs for a file: from the `#!` line of a script, or from the header of an ELF file.
fn interpreter(file: &Path) -> Option<PathBuf> {
    let file = File::open(file).ok()?;
    let mut head = Vec::with_capacity(MAX_SCRIPT_LINE_BYTES);
    (&file).take(MAX_SCRIPT_LINE_BYTES as u64).read_to_end(&mut head).ok()?;
    let path = match head.strip_prefix(b"#!") {
        Some(line) => {
            let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
            line.split(|byte| matches!(byte, b' ' | b'\t')).next()?.to_vec()
        }
        None => elf_interpreter(&head, |buffer, offset| file.read_exact_at(buffer, offset))?,
    };
    (!path.is_empty()).then(|| PathBuf::from(OsString::from_vec(path)))
}

/// What the program header `PT_INTERP` of an ELF file names; `read` gives what stands anywhere in the file.
fn elf_interpreter(head: &[u8], read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> Option<Vec<u8>> {
    const PT_INTERP: u64 = 3;
    let (is_64, is_little) = (*head.get(4)? == 2, *head.get(5)? == 1);
    let number = |bytes: &[u8], at: usize, length: usize| {
        let bytes = bytes.get(at..at + length)?.iter();
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if is_little { bytes.rev().fold(0, add) } else { bytes.fold(0, add) })
    };
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    // Offset, size and number of the program headers; in each, where the segment begins and how long it is in the file.
    let (table, size, count) = if is_64 {
        (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?)
    } else {
        (number(head, 28, 4)?, number(head, 42, 2)?, number(head, 44, 2)?)
    };
    for index in 0..count {
        let mut header = [0; 56];
        let header = &mut header[..if is_64 { 56 } else { 32 }];
        read(header, table.checked_add(index * size)?).ok()?;
        if number(header, 0, 4)? != PT_INTERP {
            continue;
        }
        let (begin, length) = if is_64 {
            (number(header, 8, 8)?, number(header, 32, 8)?)
        } else {
            (number(header, 4, 4)?, number(header, 16, 4)?)
        };
        let mut path = vec![0; length.min(MAX_INTERPRETER_BYTES) as usize];
        read(&mut path, begin).ok()?;
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
        return Some(path);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interpreter_of(bytes: &[u8]) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        interpreter(file.path()).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        let table: [(&[u8], Option<&str>); 5] = [
            (b"#!/usr/bin/python9 -u\nprint()", Some("/usr/bin/python9")),
            (b"#! /bin/sh", Some("/bin/sh")),
            (b"#!/bin/sh\r\n", Some("/bin/sh\r")),
            (b"#!\n", None),
            (b"echo", None),
        ];
        for (script, path) in table {
            assert_eq!(interpreter_of(script).as_deref(), path, "{script:?}");
        }
        assert_eq!(shown(Path::new("/bin/sh\r")), "/bin/sh\\r");
    }

    // Both word sizes and both orders of bytes.
    #[test]
    fn the_header_of_a_program_names_its_interpreter() {
        for (is_64, is_little) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut file = vec![0; 512];
            let mut put = |at: usize, length: usize, value: u64| {
                let big = value.to_be_bytes();
                let bytes = &mut file[at..at + length];
                bytes.copy_from_slice(&big[8 - length..]);
                if is_little {
                    bytes.reverse();
                }
            };
            let (second, word) = if is_64 { (64 + 56, 8) } else { (64 + 32, 4) };
            if is_64 {
                [(32, 8, 64), (54, 2, 56), (56, 2, 2)]
                    .into_iter()
                    .for_each(|(at, length, value)| put(at, length, value));
                put(second + 8, word, 300);
                put(second + 32, word, 15);
            } else {
                [(28, 4, 64), (42, 2, 32), (44, 2, 2)]
                    .into_iter()
                    .for_each(|(at, length, value)| put(at, length, value));
                put(second + 4, word, 300);
                put(second + 16, word, 15);
            }
            put(second, 4, 3);
            file[..4].copy_from_slice(b"\x7fELF");
            (file[4], file[5]) = (1 + u8::from(is_64), 2 - u8::from(is_little));
            file[300..315].copy_from_slice(b"/lib/ld-none.so");
            assert_eq!(interpreter_of(&file).as_deref(), Some("/lib/ld-none.so"), "{is_64} {is_little}");
        }
    }

    proptest! {
        // A file may hold anything.
        #[test]
        fn any_file_can_be_looked_at(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            interpreter_of(&bytes);
            let length = bytes.len().min(4);
            bytes[..length].copy_from_slice(&b"\x7fELF"[..length]);
            interpreter_of(&bytes);
        }
    }
}
