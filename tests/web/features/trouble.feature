Feature: Trouble
  Servers die and models say strange things; the page says so in a sentence and goes on.

  Scenario: The server dies in mid-reply
    Given the page is open with a model that counts slowly, on a server that will die
    When I say "Count for me"
    And the answer has reached "three"
    And the server dies
    Then the page says in one sentence that the server is gone
    And the conversation shows "three"
    When the server is there again
    And I press "Retry"
    And the answer has reached "four"
    Then the page complains no more

  Scenario: The program is started again under an open tab
    Given the page is open with the echo model, in a program that will be started again
    When I say "Said before the restart"
    Then the conversation reads "Said before the restart" and then "Said before the restart"
    When I begin to write "Said after the restart"
    And the program is started again
    Then the conversation shows "Said before the restart"
    And the message box still holds "Said after the restart"
    When I press "Send"
    Then the conversation reads "Said before the restart" and then "Said after the restart"

  Scenario: Words that look like a program
    Given the page is open with the echo model
    When I say
      """
      <script>document.title = "taken over"</script><img src="http://example.org/pixel.png" onerror="document.title = 'taken over'"> ![pixel](http://example.org/markdown.png) <b>bold</b> <iframe src="http://example.org/"></iframe> <style>body { display: none }</style> [click me](javascript:document.title=1) <svg onload="document.title='taken over'"></svg> the end
      """
    Then the conversation reads "the end" and then "the end"
    And the words ran nothing and fetched nothing

  Scenario: A word that is longer than the page is wide
    Given the page is open with the echo model
    When I say a word of 2000 letters
    Then the page does not scroll sideways
    And the message box is in view

  Scenario: Settings reach the server
    Given the page is open with the echo model
    When I set the temperature to 0.7
    And I set the seed to 42
    And I say "Roll the dice"
    Then the conversation reads "Roll the dice" and then "Roll the dice"
    And the reply was drawn with temperature 0.7 and seed 42

  Scenario: More samplers reach the server
    Given the page is open with the echo model
    When I open more samplers
    And I set the DRY multiplier to 0.8
    And I set the DRY sequence breakers to ["\n", "Ada:"]
    And I say "Roll the dice"
    Then the conversation reads "Roll the dice" and then "Roll the dice"
    And the reply was drawn with DRY at 0.8 between "\n" and "Ada:"

  Scenario: A server that asks for a key
    Given the page is open with the echo model behind the key "sesame"
    Then I am asked for the key
    When I give the key "wrong"
    Then I am asked for the key
    When I give the key "sesame"
    Then Stacy greets me
    And each character has a portrait
    When I say "Let in"
    Then the conversation reads "Let in" and then "Let in"

  Scenario: Behind a proxy, under a prefix
    Given the page is open with the echo model, behind a proxy that has it under a prefix
    When I say "Through the proxy"
    Then the conversation reads "Through the proxy" and then "Through the proxy"
    And each picture is there
    When I reload the page
    Then the conversation reads "Through the proxy" and then "Through the proxy"
