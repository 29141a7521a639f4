#!/bin/sh
# llmc-shard and calibration data: token ids as JSON lines, and what it refuses
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

shard='llmc-shard -C w -m "$demo" -s W4A16 -g 32'

ids 32 6 >ids

fails 64 'a recipe of GPTQ wants data' "$shard 2>err"
ok 'and says so' 'oneline err && clean w'
refused 66 'absent data' 'nowhere' "$shard -d nowhere"
mkdir dir
refused 65 'a directory without files' 'dir: no files' "$shard -d dir"
: >none
refused 65 'an empty file' 'none: no samples' "$shard -d none"
printf '\n \n\t\n' >none
refused 65 'nothing but white space' 'none: no samples' "$shard -d none"
printf '{"input_ids": []}\n{"input_ids": []}\n' >none
refused 65 'nothing but empty samples' 'none: no samples' "$shard -d none"

# line N of it is what is given
broken() {  # name pattern line
    { sed -n 1,2p ids; echo; printf '%s\n' "$3"; sed 1,2d ids; } >bad
    refused 65 "$1" "bad: line 4: $2" "$shard -d bad"
}

broken 'a token id outside the vocabulary' 'token id 2048 is outside the vocabulary of 2048' '{"input_ids": [1, 2048]}'
broken 'a negative token id' '.*item 1 ' '{"input_ids": [1, -1]}'
broken 'a token id beyond 32 bits' '.*item 0 ' '{"input_ids": [4294967296, 1]}'
broken 'a token id beyond 64 bits' '' '{"input_ids": [18446744073709551616, 1]}'
broken 'a token id that is a fraction' '.*item 1 ' '{"input_ids": [1, 1.5]}'
broken 'a token id that is text' '.*item 2 ' '{"input_ids": [1, 2, "3"]}'
broken 'ids that are no list' '.*is not a list' '{"input_ids": 3}'
broken 'ids that are an object' '.*is not a list' '{"input_ids": {"a": 1}}'
broken 'neither ids nor text' 'neither' '{"prompt": "x"}'
broken 'text that is a number' 'neither' '{"text": 3}'
broken 'a line that is cut' '.' '{"input_ids": [1, 2'
broken 'a line with something after it' '.' '{"input_ids": [1]} {"input_ids": [2]}'
broken 'a line that is no JSON' '.' 'input_ids: [1]'
broken 'a line that is a list' '' '[1, 2, 3]'
broken 'a line that nests without end' '.' "{\"text\": $(printf '%5000s' | tr ' ' '[')"
broken 'a line that is not UTF-8' '.' "{\"text\": \"$(printf '\377')\"}"
broken 'a line with an escape sequence' '.' "{\"input_ids\": [\"$(printf '\033[31m')\"]}"
ok 'which does not reach the terminal' '[ "$(tr -d "\n\040-\176" <err | wc -c)" -eq 0 ]'
broken 'a key twice' '.' '{"input_ids": [1], "input_ids": [2]}'

head -c 100000 /dev/zero >zeros
{ printf '{'; cat zeros; } >binary
refused 65 'binary data' 'binary: line 1' "$shard -d binary"
gzip -c ids | head -c 40 >cut.gz
refused 65 'compressed data that are cut' 'cut.gz' "$shard -d cut.gz"

# --- and what it makes of good ones ---

blocks() {  # its columns of samples and tokens
    sed 1d "$1/blocks.tsv" | cut -f 2,3 | tr '\t\n' ' ,'
}

ok 'samples fill blocks' "
    $shard -d ids --block-tokens 96
    blocks w; [ \"\$(blocks w)\" = '3 96,3 96,' ]
"
ok 'but are never cut by them' "
    rm -r w
    $shard -d ids --block-tokens 20
    blocks w; [ \"\$(blocks w)\" = '1 32,1 32,1 32,1 32,1 32,1 32,' ]
"
ok 'they are cut to the length' "
    rm -r w
    $shard -d ids --block-tokens 96 -l 20 -n 5
    blocks w; [ \"\$(blocks w)\" = '4 80,1 20,' ]
"
ok 'bad lines behind the last sample do not matter' "
    rm -r w
    { cat ids; echo '{'; } >long
    $shard -d long -n 6
    blocks w; [ \"\$(blocks w)\" = '6 192,' ]
"
ok 'same data, compressed or with blank lines, same fingerprint' "
    rm -r w
    gzip -c ids >ids.gz
    xz -c ids >ids.xz
    zstd -q ids -o ids.zst
    { echo; sed G ids; } >blank
    $shard -d ids
    mv w a
    $shard -d ids.gz
    mv w b
    $shard -d ids.xz
    mv w c
    $shard -d ids.zst
    mv w d
    $shard -d blank
    mv w e
    for w in b c d e; do
        cmp a/blocks.tsv \$w/blocks.tsv
        cmp a/tokens/0.safetensors \$w/tokens/0.safetensors
    done
"
# --- files, tars, directories, token files; packing, lengths, padding ---

mkdir parts
sed -n 1,2p ids >parts/1.jsonl
sed -n 3,6p ids | gzip >parts/2.jsonl.gz
tar cf parts.tar parts/1.jsonl parts/2.jsonl.gz
tar cf whole.tar ids
zstd -q whole.tar
ok 'a directory, its files compressed or not, and a compressed tar' "
    rm -rf w
    $shard -d ids
    cut -f 1-4 w/blocks.tsv >want
    for d in parts parts.tar whole.tar.zst; do
        rm -r w
        $shard -d \$d
        cut -f 1-4 w/blocks.tsv | cmp want -
    done
"
ok 'the tokens of a work directory are data again' "
    rm -r w
    $shard -d ids --block-tokens 4096
    cut -f 1-4 w/blocks.tsv >want
    cp w/tokens/0.safetensors again.safetensors
    rm -r w
    $shard -d again.safetensors --block-tokens 4096
    cut -f 1-4 w/blocks.tsv | cmp want -
"
ok 'packed: all joined, cut to the length, the rest dropped' "
    rm -r w
    $shard -d ids --pack -l 50
    [ \"\$(blocks w)\" = '3 150,' ]
    perl -ne 'push @i, /[0-9]+/g; END { print pack \"l<*\", @i[0 .. 149] }' ids >want
    tail -c 612 w/tokens/0.safetensors | head -c 600 | cmp want -
"
printf '{"input_ids": [1, 2, 3]}\n{"input_ids": [4]}\n{"input_ids": []}\n{"input_ids": [5, 6]}\n' >short
ok 'short samples are left out, and it is told' "
    rm -r w
    $shard -d short --min-length 2 2>err
    [ \"\$(blocks w)\" = '2 5,' ]
    grep -q 'short: 2 samples of less than 2 tokens left out' err
"
rm -rf w
refused 64 'a least length above the length' 'min-length is more' "$shard -d short --min-length 9 -l 8"
refused 65 'a stream that fills no sample' 'short: no samples: 6 tokens are less than the 7 ' "$shard -d short --pack -l 7"
printf '{"input_ids": [7, 8, 0], "attention_mask": [1, 1, 0]}\n' >padded
ok 'padding is taken away, or counted' "
    $shard -d padded
    [ \"\$(blocks w)\" = '1 2,' ]
    rm -r w
    $shard -d padded --count-padding
    [ \"\$(blocks w)\" = '1 3,' ]
    rm -r w
"
printf '{"prompt": "x", "answer": "Hello there."}\n' >named
refused 65 'columns that are not there' 'named: line 1: no "reply"' "$shard -d named --columns reply"
ok 'columns by name' "$shard -d named --columns answer; [ \"\$(blocks w | cut -c 1,2)\" = '1 ' ]; rm -r w"

# --- conversations ---

model chat
cp "$demo/tokenizer.json" chat
chat='llmc-shard -C w -m chat -s W4A16 -g 32'
printf '%s\n' '{"messages": [{"role": "user", "content": "Who wrote?"}, {"role": "assistant", "content": "She did."}]}' \
    '{"prompt": "And when?", "response": "Then."}' >talk
rm -rf w
refused 66 'conversations for a model without a chat template' 'no chat template' "$chat -d talk"
printf '%s' '{%- for m in messages %}{{ "<" + m.role + ">" + m.content }}{% if not loop.last %}{{ sep }}{% endif %}' \
    '{% endfor %}' >chat/chat_template.jinja
printf '%s\n' '{"text": "<user>Who wrote?--<assistant>She did."}' '{"text": "<user>And when?--<assistant>Then."}' >plain
ok 'conversations are what their template makes of them' "
    rm -rf a
    $chat -d talk --chat sep=--
    mv w a
    $chat -d plain
    cmp a/tokens/0.safetensors w/tokens/0.safetensors
    rm -r a w
"
refused 64 'a template variable without a value' 'want NAME=VALUE' "$chat -d talk --chat sep"
printf '{{ strftime_now("%%d") }}{{ messages[0].content }}' >chat/chat_template.jinja
refused 65 'a template that asks for the date' 'talk: line 1: .*today=YYYY-MM-DD' "$chat -d talk"
ok 'unless one is given' "$chat -d talk --chat today=2025-01-31; rm -r w"
echo '{{ raise_exception("roles must alternate") }}' >chat/chat_template.jinja
refused 65 'what the template refuses' 'talk: line 1: .*the template says: roles must alternate' "$chat -d talk"
echo '{% import "x" as y %}' >chat/chat_template.jinja
refused 65 'a template that is not understood' 'line 1: statement "import" is not supported' "$chat -d talk"

ok '--plan reads no data and writes nothing' "
    $shard --plan >plan
    [ ! -e w ]
    [ \"\$(grep -c W4A16 plan)\" -eq 28 ]
"

done_testing
