Feature: Writing
  What is written is never lost, and the page helps in writing it.

  Scenario: Each chat keeps its draft
    Given the page is open with the echo model
    When I say "A chat with a draft"
    And I begin to write "half a sentence"
    And the draft is kept
    And I press "New chat"
    Then the message box is empty and ready
    When I open the chat "A chat with a draft"
    Then the message box still holds "half a sentence"
    When I reload the page
    Then the message box still holds "half a sentence"

  Scenario: What was written in a new chat outlives a reload
    Given the page is open with the echo model
    When I begin to write "not sent yet"
    And the page is loaded again
    Then the message box still holds "not sent yet"

  Scenario: Tokens are counted while one types
    Given the page is open with the echo model
    When I say "Something first"
    And I begin to write "five words are written here"
    Then I see "5 tokens"
    And I see the tokens of the prompt and of the window

  Scenario: Three things to try
    Given the page is open with the echo model
    When I try "Ask a question"
    Then the message box still holds "How far away is the moon?"
    When I press "Send"
    Then the conversation reads "How far away is the moon?" and then "How far away is the moon?"

  Scenario: Short help
    Given the page is open with the echo model
    When I say "Help me"
    And I press the key ? outside of the message box
    Then I see "Other versions of the last reply"
    When I close the dialog with Escape
    Then I do not see "Other versions of the last reply"

  Scenario: In German
    Given I speak de-DE
    And the page is open with the echo model
    Then I see "Mit wem möchtest du sprechen?"
    And the page is written in German

  Scenario: Choosing the language
    Given the page is open with the echo model
    When I switch the language to Deutsch
    Then I see "Vorlieben"
    When the page is loaded again
    Then I see "Vorlieben"

  Scenario: Enter may begin a line
    Given the page is open with the echo model
    When I have Ctrl+Enter send
    And I write "one line" and press Enter
    And I write "another line" and press Enter
    Then I have said nothing
    When I press the keys Control+Enter
    Then the conversation reads "another line" and then "another line"

  Scenario: Code, formulas and thoughts
    Given the page is open with a model that thinks, computes and programs
    When I say "Show me"
    Then the thoughts are folded, and can be read
    And the formula is set
    And the code has colours, and can be copied

  Scenario: Write my next message
    Given the page is open with a model that says "Hello there" and "Tell me more" in turn
    When I say "Hi"
    Then the conversation reads "Hi" and then "Hello there"
    When I have my next message written
    Then the message box still holds "Tell me more"

  Scenario: Words for either side, without a reply
    Given the page is open with the echo model
    When I say "First"
    And I write "Only a remark" and add it without a reply
    Then the conversation shows "Only a remark"
    And there are 4 messages

  Scenario: The text of a file
    Given the page is open with the echo model
    When I add a text file and a picture to my message
    Then the message box holds the text under its name
    And I see "beach.png is no text"
    When I press "Send"
    Then the conversation reads "notes.txt" and then "notes.txt"
