//! A BPF object reduced to what it means: programs with their references resolved to names, maps,
//! globals, licence. Two objects that are equal in this do the same, whatever order their linker
//! put things in.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, Result, ensure};
use object::{
    Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SymbolKind,
    read::elf::{ElfFile64, ElfSection64},
};

type Elf<'data> = ElfFile64<'data, object::LittleEndian>;
type Section<'data, 'file> = ElfSection64<'data, 'file, object::LittleEndian>;

const INSTRUCTION_BYTES: u64 = 8;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// In the source register of a call: of a function of the same object.
const PSEUDO_CALL: u8 = 1;

/// Name (with section) to contents.
#[derive(PartialEq, Eq)]
pub(super) struct Canonical(BTreeMap<String, Vec<String>>);

impl Canonical {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let elf = Elf::parse(bytes).context("not a BPF object")?;
        ensure!(elf.section_by_name("license").is_some(), "the object has no licence");
        let mut parts = BTreeMap::new();
        for section in elf.sections().filter(|section| section.size() > 0) {
            let name = section.name()?;
            let relevant = [".rodata", ".data", ".bss", "maps", "license"];
            match section.kind() {
                object::SectionKind::Text => {
                    for (function, listing) in listings(&elf, &section)? {
                        parts.insert(format!("{name} {function}"), listing);
                    }
                }
                _ if relevant.iter().any(|known| name.starts_with(known)) => {
                    for (symbol, data) in variables(&elf, &section)? {
                        parts.insert(format!("{name} {symbol}"), vec![data]);
                    }
                }
                _ => {}
            }
        }
        Ok(Self(parts))
    }

    /// One line for each part that is missing or not the same.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, ours) in &self.0 {
            match other.0.get(name) {
                None => lines.push(format!("{name}: only in the object that is checked in")),
                Some(theirs) if ours != theirs => {
                    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
                    let line = |side: &Vec<String>| side.get(at).cloned().unwrap_or_default();
                    lines.push(format!("{name}+{at}: `{}` / `{}`", line(ours), line(theirs)));
                }
                Some(_) => {}
            }
        }
        let added = other.0.keys().filter(|name| !self.0.contains_key(*name));
        lines.extend(added.map(|name| format!("{name}: only in the object just built")));
        lines
    }
}

/// Every function of a section, one line per instruction.
fn listings(elf: &Elf<'_>, section: &Section<'_, '_>) -> Result<Vec<(String, Vec<String>)>> {
    let data = section.data()?;
    let relocations: BTreeMap<u64, RelocationTarget> =
        section.relocations().map(|(offset, relocation)| (offset, relocation.target())).collect();
    let mut functions = Vec::new();
    for symbol in elf.symbols().filter(|symbol| is_named_in(symbol, section.index())) {
        if symbol.kind() != SymbolKind::Text {
            continue;
        }
        let mut lines = Vec::new();
        for offset in
            (symbol.address()..symbol.address() + symbol.size()).step_by(INSTRUCTION_BYTES as usize)
        {
            let at = usize::try_from(offset)?;
            let bytes = data.get(at..at + 8).context("a function reaches past its section")?;
            let immediate = i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            let calls = bytes[0] == CALL && bytes[1] >> 4 == PSEUDO_CALL;
            let operand = match relocations.get(&offset) {
                Some(target) => reference(elf, *target, immediate, calls)?,
                None if calls => {
                    let to = offset.wrapping_add_signed(8 * (i64::from(immediate) + 1));
                    name_at(elf, section.index(), to)
                }
                None => format!("{immediate:#x}"),
            };
            let [code, registers, low, high, ..] = *bytes else { unreachable!("eight bytes") };
            lines.push(format!("{code:02x} {registers:02x} {high:02x}{low:02x} {operand}"));
        }
        functions.push((symbol.name()?.to_owned(), lines));
    }
    Ok(functions)
}

/// What a relocated operand refers to, by name.
fn reference(
    elf: &Elf<'_>,
    target: RelocationTarget,
    immediate: i32,
    calls: bool,
) -> Result<String> {
    let RelocationTarget::Symbol(index) = target else {
        return Ok(format!("{target:?}"));
    };
    let symbol = elf.symbol_by_index(index)?;
    if symbol.kind() != SymbolKind::Section {
        return Ok(symbol.name()?.to_owned());
    }
    // Relative to a section: calls count in instructions from the next one, data in bytes.
    let into = if calls { 8 * (i64::from(immediate) + 1) } else { i64::from(immediate) };
    let section = symbol.section_index().context("a section symbol without section")?;
    Ok(name_at(elf, section, symbol.address().wrapping_add_signed(into)))
}

fn name_at(elf: &Elf<'_>, section: SectionIndex, address: u64) -> String {
    elf.symbols()
        .filter(|symbol| is_named_in(symbol, section))
        .find(|symbol| (symbol.address()..symbol.address() + symbol.size()).contains(&address))
        .and_then(|symbol| {
            let into = address - symbol.address();
            Some(format!("{}+{into:#x}", symbol.name().ok()?))
        })
        .unwrap_or_else(|| format!("{section}+{address:#x}"))
}

/// The variables of a section, or the whole of it where nothing in it has a name.
fn variables(elf: &Elf<'_>, section: &Section<'_, '_>) -> Result<Vec<(String, String)>> {
    let data = section.data()?;
    let mut variables = Vec::new();
    for symbol in elf.symbols().filter(|symbol| is_named_in(symbol, section.index())) {
        let start = usize::try_from(symbol.address())?;
        let end = start + usize::try_from(symbol.size())?;
        // `.bss` has a size but no bytes.
        let bytes = data.get(start..end).unwrap_or_default();
        variables.push((symbol.name()?.to_owned(), hex(bytes)));
    }
    if variables.is_empty() {
        variables.push(("(all)".to_owned(), hex(data)));
    }
    Ok(variables)
}

fn is_named_in<'data>(symbol: &impl ObjectSymbol<'data>, section: SectionIndex) -> bool {
    symbol.section_index() == Some(section)
        && symbol.kind() != SymbolKind::Section
        && symbol.size() > 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
