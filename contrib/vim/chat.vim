" chat.vim: a conversation with Townhall, written in vim
"
" Install it with a link (or a copy) in vim's plugin folder; it is one file and needs nothing else:
"
"     mkdir -p ~/.vim/plugin && ln -s ~/townhall/contrib/vim/chat.vim ~/.vim/plugin/
"
" (neovim: ~/.config/nvim/plugin/). Then, side by side in two terminals:
"
"     townhall watch talk.chat
"     vim talk.chat
"
" Type your turn after the last "User: ". To send it:
"
"     <Leader><CR>    (normal mode, \<Enter> where nothing else is set) or :ChatSend   saves and goes to the end
"     <C-g><CR>       the same while typing, and you go on typing
"
" The reply appears by itself as it is written, and the cursor stays at the end if it was there. Turns fold (zc, zo, zM, zR).
" While you have changes of your own in the buffer it is left alone: save them first. Edit anything above and send; the answer
" to the last turn takes it into account.
"
" What may be set before this is loaded, with what it is otherwise:
"
"     let g:chat_names = ['User', 'Stacy', 'George', 'Gary', 'Lexie']    who speaks; the first one is you
"     let g:chat_interval = 100                                          milliseconds between two looks at the file
"     let g:chat_no_mappings = 0                                         1: map <Plug>(ChatSend) yourself

if exists('g:loaded_chat') || &compatible || !has('timers')
  finish
endif
let g:loaded_chat = 1

let g:chat_names = get(g:, 'chat_names', ['User', 'Stacy', 'George', 'Gary', 'Lexie'])
let g:chat_interval = get(g:, 'chat_interval', 100)

let s:timer = -1

augroup chat
  autocmd!
  autocmd BufNewFile,BufRead *.chat setfiletype chat
  autocmd BufNewFile *.chat let b:chat_unwritten = 1
  autocmd BufReadPost,BufWritePost *.chat let b:chat_unwritten = 0
  autocmd FileType chat call s:Begin()
  autocmd Syntax chat call s:Colour()
  " only asked where the buffer has changes of its own: those stay, and vim warns when they are saved
  autocmd FileChangedShell *.chat call s:Keep()
augroup END

nnoremap <silent> <Plug>(ChatSend) :<C-u>ChatSend<CR>
inoremap <silent> <Plug>(ChatSend) <C-o>:ChatSend<CR>

function! s:Begin() abort
  setlocal autoread wrap linebreak
  setlocal foldmethod=expr foldexpr=ChatFold(v:lnum) foldlevel=99
  command! -buffer ChatSend call s:Send()
  if !get(g:, 'chat_no_mappings', 0)
    nmap <buffer> <Leader><CR> <Plug>(ChatSend)
    imap <buffer> <C-g><CR> <Plug>(ChatSend)
  endif
  if s:timer < 0
    let s:timer = timer_start(g:chat_interval, function('s:Look'), {'repeat': -1})
  endif
endfunction

" Save, and go where the reply will be.
function! s:Send() abort
  update
  call s:GoToEnd()
endfunction

function! s:GoToEnd() abort
  call cursor(line('$'), col([line('$'), '$']))
endfunction

" Load what was written meanwhile, into every window that shows a chat.
function! s:Look(timer) abort
  if mode() ==# 'c' || getcmdwintype() !=# ''
    return
  endif
  let s:changed = 0
  for l:info in getwininfo()
    if getbufvar(l:info.bufnr, '&filetype') ==# 'chat'
      call win_execute(l:info.winid, 'call ChatLook()')
    endif
  endfor
  if s:changed
    redraw
  endif
endfunction

" In the window of a chat: whoever was at the end is there afterwards.
function! ChatLook() abort
  let l:before = b:changedtick
  let l:at_end = line('.') >= line('$')
  if &modified
    if !get(b:, 'chat_unwritten', 0)
      checktime %
    endif
  elseif get(b:, 'chat_unwritten', 0)
    " vim would ask about a file that was made after it was opened, and take what is being typed for the answer
    if filereadable(expand('%'))
      silent! edit
    endif
  else
    silent! checktime %
    " a reply that came before vim had looked at what it saved counts as saved by vim itself: only the size tells
    let l:size = getfsize(expand('%'))
    if l:size >= 0 && l:size != s:Size() && l:size != get(b:, 'chat_size', -1)
      let b:chat_size = l:size
      silent! edit
    endif
  endif
  if b:changedtick != l:before
    let s:changed = 1
    let b:chat_warned = 0
    if l:at_end
      call s:GoToEnd()
    endif
  endif
endfunction

" How many bytes the buffer would take as a file.
function! s:Size() abort
  let l:end = &fileformat ==# 'dos' ? 2 : 1
  return line2byte(line('$') + 1) - 1 - (&endofline ? 0 : l:end) + (&bomb ? 3 : 0)
endfunction

function! s:Keep() abort
  let l:buffer = str2nr(expand('<abuf>'))
  let v:fcs_choice = v:fcs_reason ==# 'conflict' ? '' : 'ask'
  if v:fcs_reason ==# 'conflict' && !getbufvar(l:buffer, 'chat_warned', 0)
    call setbufvar(l:buffer, 'chat_warned', 1)
    let l:text = expand('<afile>:t') . ' was written to meanwhile (:e! takes that, :w keeps yours)'
    echohl WarningMsg
    echomsg l:text
    echohl None
    if exists('*popup_notification') && mode() ==# 'i' " where a message is wiped away at once
      call popup_notification(l:text, {'time': 8000, 'highlight': 'WarningMsg', 'pos': 'botright', 'line': &lines - 1, 'col': &columns})
      redraw
    endif
  endif
endfunction

" A turn is a fold, and so are the settings on top.
function! ChatFold(lnum) abort
  let l:line = getline(a:lnum)
  return l:line =~# s:Cue(g:chat_names) || (a:lnum == 1 && l:line =~# '^---\s*$') ? '>1' : '='
endfunction

function! s:Cue(names) abort
  return '^\%(' . join(map(copy(a:names), 'escape(v:val, "\\/.*$^~[]")'), '\|') . '\):'
endfunction

function! s:Colour() abort
  execute 'syntax match chatUser /' . s:Cue(g:chat_names[:0]) . '/'
  execute 'syntax match chatPersona /' . s:Cue(g:chat_names[1:]) . '/'
  syntax region chatSettings start=/\%^---\s*$/ end=/^---\s*$/
  highlight default link chatUser Identifier
  highlight default link chatPersona Statement
  highlight default link chatSettings Comment
endfunction

" what was opened before this was loaded
if expand('%:e') ==# 'chat'
  setfiletype chat
endif
