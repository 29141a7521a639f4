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
refused 74 'a directory' 'dir: is a directory' "$shard -d dir"
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
ok '--plan reads no data and writes nothing' "
    $shard --plan >plan
    [ ! -e w ]
    [ \"\$(grep -c W4A16 plan)\" -eq 28 ]
"

done_testing
